//go:build darwin || freebsd

package evidence

import "golang.org/x/sys/unix"

func peerOf(fd int) (uid int, known bool, err error) {
	cred, err := unix.GetsockoptXucred(fd, 0 /* SOL_LOCAL */, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, false, err
	}
	return int(cred.Uid), true, nil
}
