package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/server"
)

// A system is the machine the daemon runs on.
type system struct {
	host.Host
	userName func(context.Context, uint32) string
	account  func(context.Context, uint32) account
	sources  func() []string
	// accelerate lets the kernel do what takes long otherwise; the error says why it does not.
	accelerate func() error
	// watch watches what a process takes from sockets and sends by them.
	// The error of tryWatch says why it cannot.
	watch    func(ctx context.Context, id host.ID, window time.Duration) ([]host.Transfer, error)
	tryWatch func() error
	// remember remembers connections and processes; the error says why it does not. Before it begins restore may fill the history, which remember
	// does not wait for; where restore is nil it remembers once remember returns. Later failed is told why it does not for now, and nil when it goes on.
	remember func(r Recorder, restore func(h *recorder.History, since uint64), failed func(error)) error
	// unremembered says what remember does not remember, and why.
	unremembered func() []error
	// keep calls keep with what is remembered until a time.
	keep func(keep func(h *recorder.History, at uint64) error) error
	// recorded says how remembering goes; nil where nothing is to be remembered.
	recorded func() *recorded
	// scope says for how long what is remembered holds.
	scope func() (string, error)
	// track keeps connections that the host translates for a time after they have ended, at most so many of all; tracked is how many there are.
	track   func(keep time.Duration, limit int) error
	tracked func() server.Bound
	close   func() error
	// connections lists the TCP connections with these ports, and this local address where it is valid.
	connections func(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error)
	// inside lists those of other network namespaces that have these ports, and the addresses that are valid.
	inside func(ctx context.Context, local, remote netip.AddrPort) ([]inside, error)
	pids   func() ([]int, error)
}

// A machine is a host with what else its system has for the daemon.
type machine interface {
	host.Host
	UserName(context.Context, uint32) string
	Account(context.Context, uint32) posix.Account
	Sources() []string
	Connections(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error)
	PIDs() ([]int, error)
	Close() error
}

// systemOf is a machine, of which nothing is remembered and no process is watched, and that translates nothing that is seen.
func systemOf(m machine, accelerate func() error) system {
	account := func(ctx context.Context, uid uint32) account {
		a := m.Account(ctx, uid)
		return account{a.Name, a.Home, a.GID}
	}
	return system{Host: m, userName: m.UserName, account: account, sources: m.Sources, accelerate: accelerate, close: m.Close,
		connections: m.Connections, pids: m.PIDs,
		inside:       func(context.Context, netip.AddrPort, netip.AddrPort) ([]inside, error) { return nil, nil },
		watch:        func(context.Context, host.ID, time.Duration) ([]host.Transfer, error) { return nil, errUnwatched },
		tryWatch:     func() error { return errUnwatched },
		remember:     func(Recorder, func(*recorder.History, uint64), func(error)) error { return errUnrecorded },
		unremembered: func() []error { return nil },
		keep:         func(func(*recorder.History, uint64) error) error { return errUnrecorded },
		recorded:     func() *recorded { return nil },
		scope:        func() (string, error) { return "", errUnrecorded },
		track:        func(time.Duration, int) error { return errUntracked },
		tracked:      func() server.Bound { return server.Bound{Name: translatedBound} },
	}
}

// unseen is why the daemon is of no use on a system; nil where it can see processes and sockets.
func unseen(goos string) error {
	switch goos {
	case "linux", "openbsd", "illumos", "solaris", "freebsd":
		return nil
	}
	return fmt.Errorf("this version cannot see processes and sockets on %s: %w", goos, errors.ErrUnsupported)
}

// What this version does on Linux alone.
var (
	errUnwatched  = fmt.Errorf("this version does not watch processes on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	errUntracked  = fmt.Errorf("this version does not see what is translated on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	errUnrecorded = fmt.Errorf("this version does not record what ends on %s: %w", runtime.GOOS, errors.ErrUnsupported)
)

// translatedBound names the bound on connections that the host translates.
const translatedBound = "translated_connections"

// Record records this machine, for replaying.
func Record(ctx context.Context) (host.Recording, error) {
	_ = keepProcesses() // where it cannot, the system's own view has to do
	sys, err := openSystem()
	if err != nil {
		return host.Recording{}, err
	}
	defer sys.close()
	s, err := sys.Snapshot(ctx)
	if err != nil {
		return host.Recording{}, err
	}
	defer s.Close()
	pids, err := sys.pids()
	if err != nil {
		return host.Recording{}, err
	}
	return host.Record(ctx, sys.Host, s, pids)
}
