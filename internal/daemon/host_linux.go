package daemon

import (
	"context"
	"os"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/server"
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
	remember := func(r Recorder, restore func(*recorder.History, uint64), failed func(error)) error {
		return h.Remember(linux.Recorder{Memory: r.Memory, Keep: r.Keep.Duration, Own: os.Getpid(), Restore: restore, Failed: failed})
	}
	how := func() *recorded {
		r, ok := h.Recorded()
		if !ok {
			return nil
		}
		return &recorded{r.Running, r.Since, r.Lost, r.Connections, r.Processes, r.Room}
	}
	tracked := func() server.Bound {
		t := h.Tracked()
		return server.Bound{Name: "translated_connections", Used: t.N, Limit: t.Limit, Reached: t.Forgotten + t.Lost}
	}
	return system{Host: h, userName: h.UserName, account: account, sources: h.Sources, accelerate: h.Accelerate, remember: remember, unremembered: h.Unremembered, watch: h.Watch, tryWatch: h.TryWatch, keep: h.Keep,
		recorded: how, scope: h.Scope, track: h.Track, tracked: tracked, close: h.Close, connections: h.Connections}, nil
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
