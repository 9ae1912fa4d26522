package evidence

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/stopd/stopd"
)

// No requester and no user may take the store from others. What one may hold is bounded by a part of what is
// free, not of the whole, as queues in a switch share its memory (Choudhury and Hahne, "Dynamic queue length
// thresholds for shared-memory packet switches", 1998): who fills the store comes ever slower to his own
// bound, and whoever comes fresh finds room, however many filled it.
const (
	sourceShare  = 64 // of what is free, a source may hold one part in so many,
	networkShare = 32 // its network so much,
	regionShare  = 16 // what is around that so much,
	userShare    = 16 // and so much may be held about one local user's connections.
	// About a user who has his share, each source may hold this little: nobody hides by having others
	// ask about him until nothing more is kept.
	overShare = 1024
	// reserve is the part of the store that only administrators' acts and promised trace-backs may use.
	reserve = 16
	// ledgerLimit bounds the holders that are remembered, of each kind.
	ledgerLimit = 1 << 16
)

// tracebackRoom is what a promised trace-back takes.
const tracebackRoom = recordHeader + tracebackStep + sealOverhead

// A room says who may put how much into the store. It knows what was charged since the start of the program:
// sources and users are not written to the disk.
type room struct {
	bound    int64 // bytes; 0 is none
	used     int64
	promised int64 // bytes of trace-backs to come
	sources  ledger[netip.Prefix]
	networks ledger[netip.Prefix]
	regions  ledger[netip.Prefix]
	users    ledger[uint32]
}

// newRoom forgets what was charged over time, as the store does: retention is that time, 0 for never.
func newRoom(bound int64, retention time.Duration) *room {
	return &room{bound: bound,
		sources:  ledger[netip.Prefix]{retention, map[netip.Prefix]holding{}},
		networks: ledger[netip.Prefix]{retention, map[netip.Prefix]holding{}},
		regions:  ledger[netip.Prefix]{retention, map[netip.Prefix]holding{}},
		users:    ledger[uint32]{retention, map[uint32]holding{}}}
}

func (r *room) free() int64 { return r.bound - r.bound/reserve - r.used - r.promised }

// admit charges n bytes to p, or says why not: [ErrFull] or [ErrShare].
func (r *room) admit(p stop.Payer, n int64, now time.Time) error {
	if p.Traceback {
		n += tracebackRoom
	}
	source, network, region := prefixes(p.Source)
	if r.bound > 0 {
		free := float64(r.free())
		size := float64(n)
		if size > free/sourceShare { // nobody's share is more
			return ErrFull
		}
		part := 1.0
		if p.Owned && r.users.bytes(p.UID, now)+size > free/userShare {
			part = float64(sourceShare) / overShare
		}
		switch {
		case r.sources.bytes(source, now)+size > part*free/sourceShare:
			return fmt.Errorf("%w: the requester's", ErrShare)
		case r.networks.bytes(network, now)+size > part*free/networkShare:
			return fmt.Errorf("%w: the requester's network's", ErrShare)
		case r.regions.bytes(region, now)+size > part*free/regionShare:
			return fmt.Errorf("%w: that of the networks around the requester's", ErrShare)
		}
	}
	r.charge(p, n, now)
	return nil
}

// charge adds n bytes, which are negative where a write failed.
func (r *room) charge(p stop.Payer, n int64, now time.Time) {
	source, network, region := prefixes(p.Source)
	r.used += n
	if p.Traceback {
		moved := int64(tracebackRoom)
		if n < 0 {
			moved = -moved
		}
		r.used -= moved
		r.promised += moved
	}
	r.sources.add(source, n, now)
	r.networks.add(network, n, now)
	r.regions.add(region, n, now)
	if p.Owned {
		r.users.add(p.UID, n, now)
	}
}

// delivered ends the promise of one trace-back.
func (r *room) delivered() { r.promised = max(0, r.promised-tracebackRoom) }

// prefixes gives what a source is charged as: an IPv4 address or an IPv6 host's /64, the network around it, and
// what is around that.
func prefixes(a netip.Addr) (source, network, region netip.Prefix) {
	far, wide, near := 32, 48, 64
	if a = a.Unmap().WithZone(""); a.Is4() {
		far, wide, near = 16, 24, 32
	}
	source, _ = a.Prefix(near) // of no address there is none
	network, _ = a.Prefix(wide)
	region, _ = a.Prefix(far)
	return source, network, region
}

// A ledger says how many bytes each holder has. They fade as time goes on, since evidence expires.
type ledger[K comparable] struct {
	fade time.Duration
	held map[K]holding
}

type holding struct {
	bytes float64
	at    time.Time
}

func (l ledger[K]) bytes(k K, now time.Time) float64 { return l.fadedTo(l.held[k], now) }

func (l ledger[K]) fadedTo(h holding, now time.Time) float64 {
	passed := now.Sub(h.at)
	if l.fade <= 0 || h.bytes == 0 || passed <= 0 {
		return h.bytes
	}
	return h.bytes * math.Exp(-float64(passed)/float64(l.fade))
}

func (l ledger[K]) add(k K, n int64, now time.Time) {
	if _, known := l.held[k]; !known && len(l.held) >= ledgerLimit {
		l.forget(now)
	}
	l.held[k] = holding{max(0, l.bytes(k, now)+float64(n)), now}
}

// forget drops one of those who hold least: the least of some, in the order in which a map gives them, which
// nobody can choose. To forget who holds much would let him begin anew.
func (l ledger[K]) forget(now time.Time) {
	var least K
	bytes, looked := math.Inf(1), 0
	for k, h := range l.held {
		if b := l.fadedTo(h, now); b < bytes {
			least, bytes = k, b
		}
		if looked++; looked == 64 {
			break
		}
	}
	delete(l.held, least)
}
