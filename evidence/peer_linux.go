package evidence

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID gives the effective uid that the peer had when it connected. known is false where the
// system does not tell: the socket's mode is then the only guard.
func peerUID(conn net.Conn) (uid int, known bool, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false, errors.New("no Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, got); err != nil {
		return 0, false, err
	}
	return int(cred.Uid), true, nil
}
