//go:build openbsd || freebsd

package posix

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// What one question may take at most, and what it is given at least: of structures of one size OpenBSD does not say which that is
// (sysctl_rdstruct in kern/kern_sysctl.c).
const (
	maxValue = 512 << 20
	minValue = 4 << 10
)

// Sysctl asks for a value, whatever its size. The error is [host.ErrNotFound] where a process is named that has ended. It may grow between the question how large it is and the one what it is.
func Sysctl(mib []int32) ([]byte, error) {
	for try := 1; ; try++ {
		var n uintptr
		if err := sysctlInto(mib, nil, &n); err != nil {
			return nil, err
		}
		if n += n / 8; n > maxValue {
			return nil, fmt.Errorf("bound: %d octets", maxValue)
		}
		b := make([]byte, max(n, minValue))
		n = uintptr(len(b))
		err := sysctlInto(mib, b, &n)
		if err == nil {
			return b[:min(n, uintptr(len(b)))], nil
		}
		if !errors.Is(err, unix.ENOMEM) || try == 5 {
			return nil, err
		}
	}
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
