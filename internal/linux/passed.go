package linux

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/stopd/stopd/internal/conntrack"
)

// A passed remembers the connections that the host translates, and its own, which may have had the same ends: since when each is tracked, and for a
// while which were. It is fed by
// the kernel's events, and bounded: over the bound the one forgotten is that removed longest ago, where none is removed the
// oldest.
type passed struct {
	keep  time.Duration
	limit int

	mu        sync.Mutex
	byPacket  map[conntrack.Tuple][]*passing // both directions of each; the oldest first
	open      *list.List                     // of *passing, by Opened
	removed   *list.List                     // of *passing, by Removed
	forgotten uint64                         // at the bound
	lost      uint64                         // how often events were
}

// A passing is one connection that is or was passed on.
type passing struct {
	conntrack.Entry
	opened, removed time.Time // zero is not known, and not yet
	at              *list.Element
}

// maxAlike bounds the connections that are known for a packet.
const maxAlike = 16

// packets are what is sent in the two directions of a connection, before it is translated.
func packets(e conntrack.Entry) [2]conntrack.Tuple { return [2]conntrack.Tuple{e.Original, e.Reply} }

func newPassed(keep time.Duration, limit int) *passed {
	return &passed{keep: keep, limit: limit, byPacket: map[conntrack.Tuple][]*passing{}, open: list.New(), removed: list.New()}
}

// take takes an event that came at a time.
func (p *passed) take(e conntrack.Event, now time.Time) {
	if e.Kind == conntrack.Updated {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	x := &passing{Entry: e.Entry, opened: e.Entry.Begun}
	// What the same machine had before as the very same connection is told by the latest.
	for _, old := range p.alike(e.Entry) {
		if e.Kind == conntrack.Destroyed && old.removed.IsZero() {
			x.opened = either(x.opened, old.opened)
		}
		p.drop(old)
	}
	switch e.Kind {
	case conntrack.New:
		x.opened = either(x.opened, now.UTC())
	case conntrack.Destroyed:
		x.removed = either(e.Entry.Ended, now.UTC())
	}
	p.add(x)
}

// either is a time as the kernel noted it, or else as it was noticed.
func either(noted, noticed time.Time) time.Time {
	if noted.IsZero() {
		return noticed
	}
	return noted
}

// lose forgets since when connections are tracked that are still: some of their ends were not told.
func (p *passed) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost++
	for p.open.Len() > 0 {
		p.drop(p.open.Front().Value.(*passing))
	}
}

// of returns the connections that a packet belongs to, or did within the time that they are kept, the latest first.
func (p *passed) of(packet conntrack.Tuple, now time.Time) []passing {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire(now)
	var found []passing
	for _, x := range p.byPacket[packet] {
		found = append(found, *x)
	}
	slices.Reverse(found)
	return found
}

// alike are the connections with the same ends, before and after translation.
func (p *passed) alike(e conntrack.Entry) (found []*passing) {
	for _, x := range p.byPacket[e.Reply] {
		if x.Original == e.Original && x.Reply == e.Reply && x.Zone == e.Zone {
			found = append(found, x)
		}
	}
	return found
}

func (p *passed) add(x *passing) {
	for p.open.Len()+p.removed.Len() >= p.limit {
		oldest := p.removed.Front()
		if oldest == nil {
			oldest = p.open.Front()
		}
		p.drop(oldest.Value.(*passing))
		p.forgotten++
	}
	in := p.open
	if !x.removed.IsZero() {
		in = p.removed
	}
	x.at = in.PushBack(x)
	for _, packet := range packets(x.Entry) {
		same := p.byPacket[packet]
		if len(same) >= maxAlike {
			same = same[1:]
			p.forgotten++
		}
		p.byPacket[packet] = append(same, x)
	}
}

func (p *passed) drop(x *passing) {
	in := p.open
	if !x.removed.IsZero() {
		in = p.removed
	}
	in.Remove(x.at)
	for _, packet := range packets(x.Entry) {
		left := slices.DeleteFunc(p.byPacket[packet], func(y *passing) bool { return x == y })
		if len(left) == 0 {
			delete(p.byPacket, packet)
			continue
		}
		p.byPacket[packet] = left
	}
}

// expire forgets what was removed longer ago than it is kept.
func (p *passed) expire(now time.Time) {
	for e := p.removed.Front(); e != nil; e = p.removed.Front() {
		x := e.Value.(*passing)
		if now.Sub(x.removed) < p.keep {
			return
		}
		p.drop(x)
	}
}

// level is how many connections are remembered, how many are at most, and how often the bound was met and events were lost.
func (p *passed) level() (n, limit int, forgotten, lost uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open.Len() + p.removed.Len(), p.limit, p.forgotten, p.lost
}
