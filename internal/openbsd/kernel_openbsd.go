package openbsd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/posix"
)

// Open prepares to look at this machine.
func Open() (*Host, error) {
	switch runtime.GOARCH {
	case "amd64", "arm64", "riscv64":
	default:
		return nil, fmt.Errorf("this version does not know the kernel's records on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	h := newHost(kernel{sysctl: posix.Sysctl, addresses: posix.Addresses, tail: posix.Tail, devices: devices, pid: os.Getpid()})
	// A kernel whose records are shorter refuses them.
	if _, err := h.procs(mibProcess(h.pid)); err != nil {
		return nil, err
	}
	return h, nil
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
