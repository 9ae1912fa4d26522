package daemon

import (
	"context"
	"net/netip"
	"os"

	"github.com/stopd/stopd/internal/linux"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/server"
)

func openSystem() (system, error) {
	h, err := linux.Open()
	if err != nil {
		return system{}, err
	}
	s := systemOf(h, h.Accelerate)
	s.watch, s.tryWatch = h.Watch, h.TryWatch
	s.remember = func(r Recorder, restore func(*recorder.History, uint64), failed func(error)) error {
		return h.Remember(linux.Recorder{Memory: r.Memory, Keep: r.Keep.Duration, Own: os.Getpid(), Restore: restore, Failed: failed})
	}
	s.recorded = func() *recorded {
		r, ok := h.Recorded()
		if !ok {
			return nil
		}
		return &recorded{r.Running, r.Since, r.Lost, r.Connections, r.Processes, r.Room}
	}
	s.unremembered, s.keep, s.scope = h.Unremembered, h.Keep, h.Scope
	s.inside = func(ctx context.Context, local, remote netip.AddrPort) (all []inside, err error) {
		found, err := h.Inside(ctx, local, remote)
		for _, c := range found {
			all = append(all, inside{c.Flow, c.Of, c.Outer, c.Within, c.Blind})
		}
		return all, err
	}
	s.track = h.Track
	s.tracked = func() server.Bound {
		t := h.Tracked()
		return server.Bound{Name: translatedBound, Used: t.N, Limit: t.Limit, Reached: t.Forgotten + t.Lost}
	}
	return s, nil
}

// keepProcesses keeps a view of all processes that nobody can mount anything over.
func keepProcesses() error { return linux.KeepProc() }

// abilities says what the daemon can see of this machine.
func abilities() []string { return linux.Abilities() }
