package freebsd

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/stopd/stopd/internal/posix"
)

// Open prepares to look at this machine.
func Open() (*Host, error) {
	switch runtime.GOARCH {
	case "amd64", "arm64", "riscv64":
	default:
		return nil, fmt.Errorf("this version does not know the kernel's records on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	h := newHost(kernel{sysctl: posix.Sysctl, sysctlOf: posix.SysctlOf, addresses: posix.Addresses})
	if _, err := h.procs(mibProcess(os.Getpid())); err != nil {
		return nil, err
	}
	return h, nil
}
