//go:build !linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/stopd/stopd/host"
)

// A system is the machine the daemon runs on.
type system struct {
	host.Host
	userName    func(context.Context, uint32) string
	account     func(context.Context, uint32) account
	sources     func() []string
	accelerate  func() error
	close       func() error
	connections func(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error)
}

var errSystem = fmt.Errorf("this version cannot see processes and sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openSystem() (system, error) { return system{}, errSystem }

func keepProcesses() error { return nil }

func abilities() []string { return []string{errSystem.Error()} }

func record(context.Context) (host.Recording, error) { return host.Recording{}, errSystem }
