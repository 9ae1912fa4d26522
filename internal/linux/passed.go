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
	gap       time.Time                      // when last one that has ended may have been forgotten too early, or was not told; zero is never
}

// A passing is one connection that is or was passed on.
type passing struct {
	conntrack.Entry
	opened, removed time.Time // zero is not known
	ended           time.Time // when its end was noticed; zero is not yet
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
	for _, old := range p.alike(e.Entry) {
		switch {
		case old.ended.IsZero():
			if e.Kind == conntrack.Destroyed {
				x.opened, x.PickedUp = either(x.opened, old.opened), old.PickedUp
			}
			p.drop(old)
		case e.Kind == conntrack.Destroyed && e.Entry.Replied:
			p.drop(old) // what the same machine had before as the very same connection is told by the latest
		}
	}
	switch {
	case e.Kind == conntrack.New:
		x.opened = either(x.opened, now.UTC())
		p.replace(e.Entry, now)
	case !e.Entry.Replied:
		return // nobody has answered: it was none, and anybody can have sent that in another's name
	default:
		x.removed, x.ended = either(e.Entry.Ended, now.UTC()), now
	}
	p.add(x, now)
}

// list takes a connection that is tracked now, if it is not known yet. When it was opened the kernel may have noted.
func (p *passed) list(e conntrack.Entry, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open.Len()+p.removed.Len() >= p.limit || !e.Replied || slices.ContainsFunc(p.alike(e), func(x *passing) bool { return x.ended.IsZero() }) {
		return
	}
	p.add(&passing{Entry: e, opened: e.Begun}, now)
}

// replace notes that others of the same packets have ended, at a time that is not known: in one zone a packet is of one connection.
func (p *passed) replace(e conntrack.Entry, now time.Time) {
	for _, packet := range packets(e) {
		for _, x := range p.byPacket[packet] {
			if x.Zone == e.Zone {
				p.end(x, now)
			}
		}
	}
}

// gone notes that a connection is not tracked any more, whether its end was told or not.
func (p *passed) gone(e conntrack.Entry, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.alike(e) {
		p.end(x, now)
	}
}

func (p *passed) end(x *passing, now time.Time) {
	if x.ended.IsZero() {
		p.open.Remove(x.at)
		x.ended = now
		x.at = p.removed.PushBack(x)
	}
}

// either is a time as the kernel noted it, or else as it was noticed.
func either(noted, noticed time.Time) time.Time {
	if noted.IsZero() {
		return noticed
	}
	return noted
}

// lose forgets since when connections are tracked that are still: some of their ends were not told.
func (p *passed) lose(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost++
	p.gap = now
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

// doubt says why others may have had the ends of one that has ended, of whom nothing is known; empty where nobody may.
func (p *passed) doubt(now time.Time) string {
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gap.IsZero() || now.Sub(p.gap) >= p.keep {
		return ""
	}
	return "others may have had it that are not remembered: of what has ended, something was lost until " + p.gap.UTC().Format(time.RFC3339)
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

func (p *passed) add(x *passing, now time.Time) {
	for p.open.Len()+p.removed.Len() >= p.limit {
		oldest := p.removed.Front()
		if oldest == nil {
			oldest = p.open.Front()
		}
		p.evict(oldest.Value.(*passing), now)
	}
	for _, packet := range packets(x.Entry) {
		if same := p.byPacket[packet]; len(same) >= maxAlike {
			p.evict(same[0], now)
		}
	}
	in := p.open
	if !x.ended.IsZero() {
		in = p.removed
	}
	x.at = in.PushBack(x)
	for _, packet := range packets(x.Entry) {
		p.byPacket[packet] = append(p.byPacket[packet], x)
	}
}

// evict forgets a connection at a bound. The end of one that is open is still to be told.
func (p *passed) evict(x *passing, now time.Time) {
	if !x.ended.IsZero() {
		p.gap = now
	}
	p.drop(x)
	p.forgotten++
}

func (p *passed) drop(x *passing) {
	in := p.open
	if !x.ended.IsZero() {
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
		if now.Sub(x.ended) < p.keep {
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
