package server

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stopd/stopd"
)

// Slots are how far apart the replies to each type of request may leave, counted from when the request was
// read. The requester knows the type that it asked for, so each has its own. Zero is no grid.
type Slots struct {
	ID, IDRec, SV, SVRec time.Duration
}

func (s Slots) of(t stop.Type) time.Duration {
	switch t {
	case stop.ID:
		return s.ID
	case stop.IDRec:
		return s.IDRec
	case stop.SV:
		return s.SV
	}
	return s.SVRec
}

// A grid knows how many slots the last examinations of each type took.
type grid struct {
	mu     sync.Mutex
	recent map[gridKey]*recentSlots
}

// A gridKey has the slot's length, so that a new configuration begins anew, and whether a user's files may be read,
// which takes its time.
type gridKey struct {
	typ    stop.Type
	slot   time.Duration
	naming stop.Naming
}

func (c *Config) gridKey(q stop.Question) gridKey {
	return gridKey{q.Type, c.Slots.of(q.Type), q.Naming}
}

// recentSlots are the slots of the last examinations of a type.
type recentSlots struct {
	slots [64]int
	seen  int
}

// draw returns the slots that one of the last examinations took; 1 where there was none.
func (g *grid) draw(k gridKey) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.recent[k]
	if r == nil {
		return 1
	}
	return r.slots[rand.IntN(min(r.seen, len(r.slots)))]
}

func (g *grid) took(k gridKey, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.recent == nil {
		g.recent = map[gridKey]*recentSlots{}
	}
	r := g.recent[k]
	if r == nil {
		r = new(recentSlots)
		g.recent[k] = r
	}
	r.slots[r.seen%len(r.slots)] = n
	r.seen++
}

// wait lets the time pass that an examination would have taken since the question was read, but for its last slot.
// Where examinations are late as a rule, a reply that is never late would be to none. It comes before what is recorded
// instead, so that the record is no further from the reply than a report is.
func (s *Server) wait(cfg *Config, q stop.Question) {
	k := cfg.gridKey(q)
	time.Sleep(time.Until(q.Time.Add(time.Duration(s.grid.draw(k)-1) * k.slot)))
}

// release holds a reply back until the next slot. Every reply to a line that parses
// passes here, so that its time need not tell what its text hides.
func (s *Server) release(cfg *Config, q stop.Question, began time.Time, examined bool) {
	k := cfg.gridKey(q)
	if k.slot <= 0 {
		return
	}
	done := time.Now()
	n := int(done.Sub(began)/k.slot) + 1
	if examined {
		s.grid.took(k, n)
	}
	sleepUntil(began.Add(time.Duration(n) * k.slot))
}
