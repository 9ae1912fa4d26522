package evidence

import (
	"errors"
	"net"
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
	var got error
	err = raw.Control(func(fd uintptr) { uid, known, got = peerOf(int(fd)) })
	if err := errors.Join(err, got); err != nil {
		return 0, false, err
	}
	return uid, known, nil
}
