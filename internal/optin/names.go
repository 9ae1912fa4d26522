package optin

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Names are the addresses of hosts that users name in their files. Nobody waits for a look-up: what is not known yet is
// looked up for the next time, and kept up to date as long as somebody asks.
type Names struct {
	// Resolve looks a host's name up.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)

	mu      sync.Mutex
	known   map[named]*addresses
	running map[uint32]int // look-ups of each user
	total   int
}

// A named is a host that a user named: each user has entries of his own, so that none fills the table to others.
type named struct {
	uid  uint32
	name string
}

type addresses struct {
	addrs       []netip.Addr
	known       bool
	found       time.Time // when addrs were
	tried, used time.Time // last
	running     bool
}

// Bounds of the names.
const (
	maxEntries    = 4096
	maxUserNames  = 2 * MaxNames // of one user: those that he has, and those that he had
	maxLookups    = 32           // at once
	maxUserLookup = 4            // of one user
	lookupTime    = 5 * time.Second
	refreshAfter  = 5 * time.Minute
	retryAfter    = 30 * time.Second
	usableFor     = time.Hour          // where the look-ups that follow fail
	unusedFor     = 7 * 24 * time.Hour // then they are forgotten
)

// Has reports whether a host that a user names has an address; known is false where that is not known yet.
func (n *Names) Has(uid uint32, name string, a netip.Addr) (has, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	k := named{uid, name}
	e := n.known[k]
	if e == nil {
		e = n.add(k)
	}
	e.used = now
	n.refresh(k, e, now)
	if !e.known || now.Sub(e.found) > usableFor {
		return false, false
	}
	return slices.Contains(e.addrs, a.Unmap().WithZone("")), true
}

// Run keeps the names up to date until the context ends.
func (n *Names) Run(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n.mu.Lock()
		now := time.Now()
		for k, e := range n.known {
			if now.Sub(e.used) > unusedFor {
				delete(n.known, k)
			} else {
				n.refresh(k, e, now)
			}
		}
		n.mu.Unlock()
	}
}

// add makes an entry. Where there are too many, the one unused longest makes room; where its user has too many, his own.
func (n *Names) add(k named) *addresses {
	if n.known == nil {
		n.known, n.running = map[named]*addresses{}, map[uint32]int{}
	}
	var oldest, own *named
	mine := 0
	for o, e := range n.known {
		if oldest == nil || e.used.Before(n.known[*oldest].used) {
			oldest = &o
		}
		if o.uid != k.uid {
			continue
		}
		if mine++; own == nil || e.used.Before(n.known[*own].used) {
			own = &o
		}
	}
	switch {
	case mine >= maxUserNames:
		delete(n.known, *own)
	case len(n.known) >= maxEntries:
		delete(n.known, *oldest)
	}
	e := &addresses{}
	n.known[k] = e
	return e
}

// refresh begins to look a name up, where it is time and there is room. What finds no room has it another time.
func (n *Names) refresh(k named, e *addresses, now time.Time) {
	after := refreshAfter
	if !e.known || e.tried.After(e.found) {
		after = retryAfter
	}
	if e.running || now.Sub(e.tried) < after || n.total >= maxLookups || n.running[k.uid] >= maxUserLookup {
		return
	}
	e.running, e.tried = true, now
	n.total++
	n.running[k.uid]++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
		defer cancel()
		addrs, err := n.Resolve(ctx, k.name)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.total--
		if n.running[k.uid]--; n.running[k.uid] == 0 {
			delete(n.running, k.uid)
		}
		e.running = false
		if err == nil {
			e.addrs, e.known, e.found, e.tried = addrs, true, now, now
		}
	}()
}
