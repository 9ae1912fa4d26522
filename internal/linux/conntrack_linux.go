package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/conntrack"
)

// A conntracker asks the connection tracking of one network namespace (nfnetlink, which takes CAP_NET_ADMIN
// there).
type conntracker struct{ netlinks }

func newConntracker(nsfd int) *conntracker {
	return &conntracker{netlinks{protocol: unix.NETLINK_NETFILTER, nsfd: nsfd}}
}

// errNoConntrack says that the kernel tracks no connections, so that it translates none either.
var errNoConntrack = errors.New("the kernel has no connection tracking")

// entries returns how many connections are tracked.
func (c *conntracker) entries(ctx context.Context) (uint32, error) {
	b, err := c.one(ctx, conntrack.MessageStats, conntrack.StatsRequest())
	switch {
	case err != nil && untracked():
		return 0, errNoConntrack
	case err != nil:
		return 0, fmt.Errorf("ask connection tracking: %w", err)
	}
	return conntrack.ParseStats(b)
}

// untracked reports whether the kernel, or its module, is not there at all. What it has is seen by anybody.
func untracked() bool {
	_, err := os.Stat("/proc/sys/net/netfilter/nf_conntrack_count")
	return os.IsNotExist(err)
}

// find returns the entry of a zone that a packet belongs to.
func (c *conntracker) find(ctx context.Context, p conntrack.Tuple, zone uint16) (conntrack.Entry, bool, error) {
	b, err := c.one(ctx, conntrack.MessageGet, conntrack.GetRequest(p, zone))
	if errors.Is(err, unix.ENOENT) {
		return conntrack.Entry{}, false, nil
	}
	if err != nil {
		return conntrack.Entry{}, false, fmt.Errorf("ask connection tracking: %w", err)
	}
	t, err := conntrack.ParseEntry(b)
	return t, err == nil, err
}

// maxTracked bounds the entries that are read to see which zones there are, and maxZones those zones.
const (
	maxTracked = 1 << 20
	maxZones   = 64
)

// zonesInUse returns the zones, beside the default one, of the TCP connections that are tracked. The kernel
// lists them all for it.
func (c *conntracker) zonesInUse(ctx context.Context) ([]uint16, error) {
	zones := map[uint16]bool{}
	for _, request := range conntrack.DumpRequests() {
		if err := c.zonesOf(ctx, request, zones); err != nil {
			return nil, fmt.Errorf("list tracked connections: %w", err)
		}
	}
	return slices.Sorted(maps.Keys(zones)), nil
}

func (c *conntracker) zonesOf(ctx context.Context, request []byte, zones map[uint16]bool) error {
	n := 0
	return c.each(ctx, request, func(b []byte) error {
		for _, z := range conntrack.ParseZones(b) {
			zones[z] = true
		}
		if n++; n > maxTracked || len(zones) > maxZones {
			return fmt.Errorf("bound: %d connections, %d zones", maxTracked, maxZones)
		}
		return nil
	})
}

// each calls a function with each entry that answers a request of [conntrack.DumpRequests], until that fails.
func (c *conntracker) each(ctx context.Context, request []byte, f func([]byte) error) (err error) {
	conn, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { c.give(conn, err == nil) }()
	_, err = conn.Send(netlink.Message{Header: netlink.Header{Type: conntrack.MessageGet, Flags: netlink.Request | netlink.Dump}, Data: request})
	if err != nil {
		return err
	}
	for m, err := range conn.ReceiveIter() {
		if err == nil {
			err = f(m.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A zones remembers which zones each network namespace has been seen to use.
type zones struct {
	mu   sync.Mutex
	seen map[uint64]zoneList
}

type zoneList struct {
	begun time.Time
	took  time.Duration
	zones []uint16
	err   error
}

// Bounds of a zoneList: how old it may be, and that listing costs at most one share of the time. Zones are
// configured, they do not come and go with connections.
const (
	zonesAge      = time.Second
	zonesRatio    = 20
	maxZoneSpaces = 256
)

func (z *zones) of(ctx context.Context, n *namespace) ([]uint16, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	l, ok := z.seen[n.inode]
	if !ok || time.Since(l.begun) >= max(zonesAge, zonesRatio*l.took) {
		known := l.zones
		l = zoneList{begun: time.Now()}
		l.zones, l.err = n.conntrack.zonesInUse(ctx)
		l.took = time.Since(l.begun)
		if l.zones = slices.Compact(slices.Sorted(slices.Values(append(l.zones, known...)))); len(l.zones) > maxZones && l.err == nil {
			l.err = fmt.Errorf("bound: %d zones", maxZones)
		}
		if z.seen == nil || len(z.seen) >= maxZoneSpaces {
			z.seen = map[uint64]zoneList{}
		}
		z.seen[n.inode] = l
	}
	return l.zones, l.err
}
