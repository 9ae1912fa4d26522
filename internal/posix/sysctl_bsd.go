//go:build openbsd || freebsd

package posix

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// Sysctl asks for a value, whatever its size. The error is [host.ErrNotFound] where a process is named that has ended.
func Sysctl(mib []int32) ([]byte, error) {
	return whole(func(b []byte) (int, error) {
		n := uintptr(len(b))
		err := sysctlInto(mib, b, &n)
		return int(n), err
	})
}

func sysctlInto(mib []int32, b []byte, n *uintptr) error {
	var to unsafe.Pointer
	if len(b) > 0 {
		to = unsafe.Pointer(&b[0])
	}
	_, _, errno := unix.Syscall6(unix.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), uintptr(len(mib)), uintptr(to), uintptr(unsafe.Pointer(n)), 0, 0)
	switch errno {
	case 0:
		return nil
	case unix.ESRCH:
		return host.ErrNotFound
	}
	return fmt.Errorf("sysctl %v: %w", mib, errno)
}
