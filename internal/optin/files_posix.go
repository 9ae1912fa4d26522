//go:build unix && !linux

package optin

import (
	"golang.org/x/sys/unix"
)

// toLook opens what is only looked at.
const toLook = unix.O_RDONLY

// openUsers opens a file of a user's, and looks at it before and after: no user makes a device, and a FIFO does not wait for who
// does not block.
func openUsers(home int, name string, uid uint32) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(home, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	if err := checkUsers(st, uid); err != nil {
		return -1, err
	}
	in, err := unix.Openat(home, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errNotUsers // it was there
	}
	if err := unix.Fstat(in, &st); err != nil || checkUsers(st, uid) != nil {
		unix.Close(in)
		return -1, errNotUsers
	}
	return in, nil
}
