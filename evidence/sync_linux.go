package evidence

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncData makes f's data durable, and of its metadata what reading them back takes: the size.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// nameless makes a file in dir that nobody finds, and that is gone when it is closed (open(2), O_TMPFILE).
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}
