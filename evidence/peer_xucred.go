//go:build darwin || freebsd

package evidence

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

func peerUID(conn net.Conn) (uid int, known bool, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false, errors.New("no Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var cred *unix.Xucred
	var got error
	err = raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptXucred(int(fd), 0 /* SOL_LOCAL */, unix.LOCAL_PEERCRED)
	})
	if err := errors.Join(err, got); err != nil {
		return 0, false, err
	}
	return int(cred.Uid), true, nil
}
