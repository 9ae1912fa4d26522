package server

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// A payer is who takes part of what there is only so much of: the source that asks and, where the connection that
// is asked about was looked up, the local user who owns it.
type payer struct {
	source netip.Prefix
	owner  uint64
	owned  bool // owner is known
}

// shares divides room among those who ask. No source has more than a part of what is left, so whoever takes all it
// can leaves room for the next, and no user more than half of all: one who has many connections asked about, each
// slow to look at, must not keep others from being looked at, nor himself where another host asks.
type shares struct {
	mu       sync.Mutex
	limit    int
	part     int // a source's part of what is left is one of so many
	taken    int
	bySource map[netip.Prefix]int
	byUser   map[uint64]int
	queue    list.List // of *waiter, the first to come first
	// served says when each source was last given room, as a count of all that were.
	served  map[netip.Prefix]uint64
	given   uint64
	reached uint64 // how often the bound was met
}

// maxServed is of how many sources it is known when they were served. Who has more to ask from has never been served by some, whatever is kept.
const maxServed = 1 << 12

// A waiter waits for room, which is taken for it when granted is closed.
type waiter struct {
	payer
	granted chan struct{}
}

func newShares(limit, part int) *shares {
	return &shares{limit: limit, part: part, bySource: map[netip.Prefix]int{}, byUser: map[uint64]int{}, served: map[netip.Prefix]uint64{}}
}

// fits reports whether there is room for one more of a payer's: one at least, since small numbers have no parts.
func (s *shares) fits(p payer) bool {
	left := s.limit - s.taken
	return left > 0 && s.bySource[p.source] < max(1, left/s.part) &&
		(!p.owned || s.byUser[p.owner] < max(1, s.limit/2))
}

func (s *shares) give(p payer) {
	s.taken++
	s.bySource[p.source]++
	if len(s.served) >= maxServed {
		clear(s.served)
	}
	s.given++
	s.served[p.source] = s.given
	if p.owned {
		s.byUser[p.owner]++
	}
}

// take takes room; false where there is none.
func (s *shares) take(p payer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fits(p) {
		s.reached++
		return false
	}
	s.give(p)
	return true
}

// wait takes room, and waits for it as long as is said; false where there was none.
func (s *shares) wait(p payer, most time.Duration) bool {
	s.mu.Lock()
	if s.fits(p) {
		s.give(p)
		s.mu.Unlock()
		return true
	}
	w := &waiter{p, make(chan struct{})}
	at := s.queue.PushBack(w)
	s.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-w.granted:
		return true
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-w.granted: // meanwhile
		return true
	default:
	}
	s.queue.Remove(at)
	s.reached++
	return false
}

// giveBack ends what take or wait began, and lets those in who fit now; see next.
func (s *shares) giveBack(p payer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	less(s.bySource, p.source)
	if p.owned {
		less(s.byUser, p.owner)
	}
	for at := s.next(); at != nil; at = s.next() {
		w := s.queue.Remove(at).(*waiter)
		s.give(w.payer)
		close(w.granted)
	}
}

// next is the waiter to be let in: of those who fit, the one whose source was served least recently, so that whoever asks all the time does not delay
// who asks for the first time; of one source's the first. It returns nil for none.
func (s *shares) next() (next *list.Element) {
	if s.taken == s.limit {
		return nil
	}
	var last uint64
	for at := s.queue.Front(); at != nil; at = at.Next() {
		w := at.Value.(*waiter)
		if served := s.served[w.source]; (next == nil || served < last) && s.fits(w.payer) {
			next, last = at, served
		}
	}
	return next
}

func less[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] == 0 {
		delete(m, k)
	}
}
