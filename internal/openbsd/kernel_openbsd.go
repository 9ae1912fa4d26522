package openbsd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Open prepares to look at this machine.
func Open() (*Host, error) {
	switch runtime.GOARCH {
	case "amd64", "arm64", "riscv64":
	default:
		return nil, fmt.Errorf("this version does not know the kernel's records on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	h := newHost(kernel{sysctl: sysctl, addresses: addresses, tail: posix.Tail, devices: devices, pid: os.Getpid()})
	// A kernel whose records are shorter refuses them.
	if _, err := h.procs(mibProcess(h.pid)); err != nil {
		return nil, err
	}
	return h, nil
}

// maxValue bounds what one question may take.
const maxValue = 512 << 20

// sysctl asks for a value, whatever its size. It may grow between the question how large it is and the one what it is.
func sysctl(mib []int32) ([]byte, error) {
	for try := 1; ; try++ {
		var n uintptr
		if err := sysctlInto(mib, nil, &n); err != nil {
			return nil, err
		}
		if n += n / 8; n > maxValue {
			return nil, fmt.Errorf("bound: %d octets", maxValue)
		}
		b := make([]byte, max(n, 1))
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

func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var as []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				as = append(as, ip.Unmap())
			}
		}
	}
	slices.SortFunc(as, netip.Addr.Compare)
	return slices.Compact(as), nil
}

// devices lists the character devices below /dev; without it they have numbers.
func devices() map[uint32]string {
	entries, _ := os.ReadDir("/dev")
	paths := map[uint32]string{}
	for _, e := range entries {
		var st unix.Stat_t
		path := filepath.Join("/dev", e.Name())
		if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && paths[uint32(st.Rdev)] == "" {
			paths[uint32(st.Rdev)] = path
		}
	}
	return paths
}
