package optin

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// toLook opens what is only looked at.
const toLook = unix.O_PATH

// openUsers opens a file of a user's. A device does something when it is opened, and a FIFO waits: so first it is only looked
// at, and what was looked at is opened.
func openUsers(home int, name string, uid uint32) (int, error) {
	fd, err := unix.Openat(home, name, toLook|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || checkUsers(st, uid) != nil {
		return -1, errNotUsers
	}
	// Nor for whoever has a lease on it (fcntl(2)).
	in, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errNotUsers // it was there
	}
	return in, nil
}
