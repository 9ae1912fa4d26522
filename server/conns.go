package server

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// conns are the open connections. At a bound the one that has been idle longest makes room: refusing
// newcomers would let anybody close the daemon to others.
type conns struct {
	mu       sync.Mutex
	open     map[*conn]bool
	bySource map[netip.Prefix]int
}

type conn struct {
	net.Conn
	source netip.Prefix
	since  time.Time // zero while a request is worked on
}

// add admits a connection; nil where it has to go.
func (cs *conns) add(nc net.Conn, from netip.Addr, l Limits, count *Counters) *conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := &conn{Conn: nc, source: source(from), since: time.Now()}
	own := func(o *conn) bool { return o.source == c.source }
	if cs.bySource[c.source] >= l.ConnectionsPerSource {
		if !cs.close(own) {
			return nil
		}
		count.Evicted.Add(1)
	}
	if len(cs.open) >= l.Connections {
		if !cs.close(func(*conn) bool { return true }) {
			return nil
		}
		count.Evicted.Add(1)
	}
	cs.open[c] = true
	cs.bySource[c.source]++
	return c
}

// close ends the connection that has been idle longest among some; false where none is idle.
func (cs *conns) close(among func(*conn) bool) bool {
	var oldest *conn
	for c := range cs.open {
		if among(c) && !c.since.IsZero() && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	oldest.Close()
	cs.forget(oldest)
	return true
}

// evict makes room for one connection.
func (cs *conns) evict() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.close(func(*conn) bool { return true })
}

func (cs *conns) forget(c *conn) {
	if !cs.open[c] {
		return
	}
	delete(cs.open, c)
	if cs.bySource[c.source]--; cs.bySource[c.source] == 0 {
		delete(cs.bySource, c.source)
	}
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.forget(c)
}

func (cs *conns) waiting(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.since = time.Now()
}

func (cs *conns) working(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.since = time.Time{}
}
