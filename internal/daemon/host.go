package daemon

import (
	"context"
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
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
}
