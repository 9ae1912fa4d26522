//go:build openbsd || freebsd

package posix

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

var asked sizes

// Sysctl asks for a value, whatever its size. The error is [host.ErrNotFound] where a process is named that has ended, or that may not be
// seen.
func Sysctl(mib []int32) ([]byte, error) {
	name := fmt.Sprint(mib)
	b, err := whole(asked.of(name), func(b []byte) (int, error) {
		n := uintptr(len(b))
		err := sysctlInto(mib, b, &n, nil)
		return int(n), err
	})
	asked.keep(name, len(b))
	return b, err
}

// sysctlInto asks for a value with another, which may be none.
func sysctlInto(mib []int32, b []byte, n *uintptr, with []byte) error {
	_, _, errno := unix.Syscall6(unix.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), uintptr(len(mib)),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(n)), uintptr(unsafe.Pointer(unsafe.SliceData(with))), uintptr(len(with)))
	switch errno {
	case 0:
		return nil
	case unix.ESRCH:
		return host.ErrNotFound
	}
	return fmt.Errorf("sysctl %v: %w", mib, errno)
}
