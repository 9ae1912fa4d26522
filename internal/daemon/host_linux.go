package daemon

import (
	"context"
	"net/netip"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
)

// A system is the machine the daemon runs on.
type system struct {
	host.Host
	userName func(context.Context, uint32) string
	account  func(context.Context, uint32) account
	sources  func() []string
	// accelerate lets the kernel do what takes long otherwise; the error says why it does not.
	accelerate func() error
	close      func() error
	// connections lists the TCP connections with these ports, and this local address where it is valid.
	connections func(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error)
}

func openSystem() (system, error) {
	h, err := linux.Open()
	if err != nil {
		return system{}, err
	}
	account := func(ctx context.Context, uid uint32) account {
		a := h.Account(ctx, uid)
		return account{a.Name, a.Home, a.GID}
	}
	return system{Host: h, userName: h.UserName, account: account, sources: h.Sources, accelerate: h.Accelerate, close: h.Close, connections: h.Connections}, nil
}

// keepProcesses keeps a view of all processes that nobody can mount anything over.
func keepProcesses() error { return linux.KeepProc() }

// abilities says what the daemon can see of this machine.
func abilities() []string { return linux.Abilities() }

// record records this machine.
func record(ctx context.Context) (host.Recording, error) {
	_ = keepProcesses() // where it cannot, /proc has to do
	h, err := linux.Open()
	if err != nil {
		return host.Recording{}, err
	}
	defer h.Close()
	s, err := h.Snapshot(ctx)
	if err != nil {
		return host.Recording{}, err
	}
	defer s.Close()
	pids, err := linux.PIDs()
	if err != nil {
		return host.Recording{}, err
	}
	return host.Record(ctx, h, s, pids)
}
