package daemon

import (
	"context"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
)

func openSystem() (system, error) {
	h, err := linux.Open()
	if err != nil {
		return system{}, err
	}
	account := func(ctx context.Context, uid uint32) account {
		a := h.Account(ctx, uid)
		return account{a.Name, a.Home, a.GID}
	}
	return system{Host: h, userName: h.UserName, account: account, sources: h.Sources, accelerate: h.Accelerate, remember: h.Remember, watch: h.Watch, close: h.Close, connections: h.Connections}, nil
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
