package posix

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// SysctlOf asks what a name of sysctl(3) gives for a question, at most so many octets. The error is [host.ErrNotFound] where the kernel
// knows nothing of what was asked about.
func SysctlOf(name string, question []byte, size int) ([]byte, error) {
	oid := make([]byte, unix.CTL_MAXNAME*4)
	n := uintptr(len(oid))
	if err := sysctlInto([]int32{0, 3}, oid, &n, []byte(name)); err != nil { // sysctl_sysctl_name2oid in kern/kern_sysctl.c
		return nil, fmt.Errorf("look up %s: %v", name, err) // not that nothing is known of what was asked about
	}
	mib := unsafe.Slice((*int32)(unsafe.Pointer(&oid[0])), n/4)
	b := make([]byte, size)
	n = uintptr(size)
	err := sysctlInto(mib, b, &n, question)
	if errors.Is(err, unix.ENOENT) {
		return nil, host.ErrNotFound
	}
	return b[:n], err
}
