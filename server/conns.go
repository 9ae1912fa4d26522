package server

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// conns are the open connections. At a bound the one that has been idle longest makes room, and where none is idle the
// oldest ends with the reply that it is owed: refusing newcomers would let anybody close the daemon to others, be it
// to those of his own address.
type conns struct {
	mu       sync.Mutex
	open     map[*conn]bool
	staying  int // open, without those that end with their reply
	bySource map[netip.Prefix]int
}

type conn struct {
	net.Conn
	from, to netip.Addr
	sentTo   netip.Addr // where the other end meant to connect to, if that is another; see sentTo
	port     uint16     // that it comes from
	secure   bool       // it speaks TLS
	key      string     // the pin of the key that the other end has shown to have; empty for none
	source   netip.Prefix
	began    time.Time
	since    time.Time // idle since; zero while a request is worked on
	asked    bool      // it has had a line
	last     bool      // it ends with the reply that it is owed
}

// add admits a connection; nil where it has to go: there are as many again that end with their reply.
func (cs *conns) add(nc net.Conn, from netip.Addr, l Limits, count *Counters, r *reached) *conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	now := time.Now()
	c := &conn{Conn: nc, source: Source(from), began: now, since: now}
	if cs.bySource[c.source] >= l.ConnectionsPerSource {
		r.connectionsPerSource.Add(1)
		if !cs.makeRoom(func(o *conn) bool { return o.source == c.source }, l.ConnectionsPerSource) {
			return nil
		}
		count.Evicted.Add(1)
	}
	if cs.staying >= l.Connections {
		r.connections.Add(1)
		if !cs.makeRoom(func(*conn) bool { return true }, l.Connections) {
			return nil
		}
		count.Evicted.Add(1)
	}
	cs.open[c] = true
	cs.staying++
	cs.bySource[c.source]++
	return c
}

// grace is how long a newcomer's first line may take before it counts as idle. Otherwise whoever connects fast enough
// would end others' connections before their line has come.
const grace = time.Second

// makeRoom ends one connection among some; false where none is idle, and as many as the limit still work on their last
// reply.
func (cs *conns) makeRoom(among func(*conn) bool, limit int) bool {
	var idle, oldest, answered, young *conn
	ending := 0
	now := time.Now()
	for c := range cs.open {
		switch {
		case !among(c):
		case c.last && c.since.IsZero():
			ending++
		case c.last:
			ending++
			answered = c
		case c.since.IsZero():
			if oldest == nil || c.began.Before(oldest.began) {
				oldest = c
			}
		case !c.asked && now.Sub(c.began) < grace:
			if young == nil || c.began.Before(young.began) {
				young = c
			}
		case idle == nil || c.since.Before(idle.since):
			idle = c
		}
	}
	switch {
	case idle != nil:
		idle.Close()
		cs.forget(idle)
	case oldest != nil && (ending < limit || answered != nil):
		if ending >= limit {
			answered.Close()
			cs.forget(answered)
		}
		oldest.last = true
		cs.leave(oldest)
	case young != nil:
		young.Close()
		cs.forget(young)
	default:
		return false
	}
	return true
}

// evict makes room for one connection, if any is idle.
func (cs *conns) evict(count *Counters) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.makeRoom(func(*conn) bool { return true }, 0) {
		count.Evicted.Add(1)
	}
}

func (cs *conns) forget(c *conn) {
	if !cs.open[c] {
		return
	}
	delete(cs.open, c)
	if !c.last {
		cs.leave(c)
	}
}

// leave takes a connection out of those that stay.
func (cs *conns) leave(c *conn) {
	cs.staying--
	less(cs.bySource, c.source)
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.forget(c)
}

// waiting notes that a connection is idle; false where it is to end.
func (cs *conns) waiting(c *conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.since = time.Now()
	return !c.last
}

// working notes that a connection has had a line; false where it has made room meanwhile, and no reply would arrive.
func (cs *conns) working(c *conn) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.since, c.asked = time.Time{}, true
	return cs.open[c]
}
