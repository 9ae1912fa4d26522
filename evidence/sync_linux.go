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
