package daemon

import (
	"context"
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
)

// A system is the machine the daemon runs on.
type system struct {
	host.Host
	userName func(context.Context, uint32) string
	account  func(context.Context, uint32) account
	sources  func() []string
	// accelerate lets the kernel do what takes long otherwise; the error says why it does not.
	accelerate func() error
	// remember remembers connections and processes for so long, in so many octets; the error says why it does not.
	remember func(memory int, keep time.Duration) error
	// watch watches what a process takes from sockets and sends by them.
	watch func(ctx context.Context, id host.ID, window time.Duration) ([]host.Transfer, error)
	close func() error
	// connections lists the TCP connections with these ports, and this local address where it is valid.
	connections func(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error)
}
