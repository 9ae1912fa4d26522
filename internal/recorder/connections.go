package recorder

import "net/netip"

// holdersKept is how many holders of a connection are kept.
const holdersKept = 2

// connections is the table of connections.
type connections struct {
	all     []connection
	slots   slots
	flows   chain
	cookies chain
	holders chain // its nodes are of slotOf and roleOf
}

func slotOf(node uint32) uint32 { return (node-1)/holdersKept + 1 }
func roleOf(node uint32) int    { return int(node-1) % holdersKept }
func nodeOf(slot uint32, role int) uint32 {
	return (slot-1)*holdersKept + uint32(role) + 1
}

// A connection as it lies in the table.
type connection struct {
	cookie                uint64 // 0: nobody's
	opened, closed        uint64
	pending               uint64 // since when it is known, until it is established; then octets sent
	received              uint64
	starts                [holdersKept]uint64
	pids                  [holdersKept]uint32
	netns, uid            uint32
	local, remote         [16]byte
	localPort, remotePort uint16
	flags                 uint8
	direction             Direction
}

func (c *connections) make(n int) {
	*c = connections{make([]connection, n+1), newSlots(n), newChain(bucketsFor(n), n), newChain(bucketsFor(n), n), newChain(bucketsFor(n), n*holdersKept)}
}

// connectionsBytes is what make takes.
func connectionsBytes(n int) int {
	return taken[connection](n+1) + 4*(n+1) + 2*chainBytes(bucketsFor(n), n) + chainBytes(bucketsFor(n), n*holdersKept)
}

func (s *connection) holder(role int) ID { return ID{s.pids[role], s.starts[role]} }

func (s *connection) ends() (local, remote netip.AddrPort) {
	return netip.AddrPortFrom(netip.AddrFrom16(s.local).Unmap(), s.localPort), netip.AddrPortFrom(netip.AddrFrom16(s.remote).Unmap(), s.remotePort)
}

func (s *connection) is(local, remote netip.AddrPort, netns uint32) bool {
	l, r := s.ends()
	return s.netns == netns && l == local && r == remote
}

// within reports whether a connection may have been open at some time between two: one that was met is older.
func (s *connection) within(from, to uint64) bool {
	return (s.opened <= to || s.flags&met != 0) && (s.closed == 0 || s.closed >= from)
}

func (h *History) connection(n uint32) Connection {
	s := &h.connections.all[n]
	c := Connection{Cookie: s.cookie, NetNS: s.netns, Direction: s.direction, UID: s.uid, Opened: s.opened, Closed: s.closed,
		Received: s.received, More: s.flags&more != 0, Met: s.flags&met != 0, Unsure: s.flags&unsure != 0}
	c.Local, c.Remote = s.ends()
	if s.closed != 0 {
		c.Sent = s.pending
	}
	for role := range holdersKept {
		if id := s.holder(role); id.PID != 0 {
			c.Holders = append(c.Holders, id)
		}
	}
	return c
}

// findCookie returns the latest connection of a socket: one that was disconnected may be connected again. They were entered in this order.
func (h *History) findCookie(cookie uint64) uint32 {
	c := &h.connections
	for n := c.cookies.first(h.cookieHash(cookie)); n != 0; n = c.cookies.next[n] {
		if c.all[n].cookie == cookie {
			return n
		}
	}
	return 0
}

// addConnection returns a new entry; 0 where all places are of connections that are open.
func (h *History) addConnection(at, cookie uint64) uint32 {
	c := &h.connections
	n := c.slots.take()
	if n == 0 && c.slots.first != 0 {
		h.dropConnection()
		n = c.slots.take()
	}
	if n == 0 {
		h.missed = true
		h.losses.add(Loss{Full, at, at})
		return 0
	}
	c.all[n] = connection{cookie: cookie, pending: at}
	c.cookies.insert(h.cookieHash(cookie), n)
	return n
}

// dropConnection forgets the connection that closed first.
func (h *History) dropConnection() {
	c := &h.connections
	n := c.slots.shift()
	if next := c.slots.first; next != 0 && c.all[n].closed > c.all[next].closed { // it went on after a sweep
		c.slots.end(n)
		n = c.slots.shift()
	}
	h.losses.forgot(c.all[n].closed)
	h.freeConnection(n)
}

func (h *History) freeConnection(n uint32) {
	c := &h.connections
	s := &c.all[n]
	c.cookies.remove(h.cookieHash(s.cookie), n)
	if s.opened != 0 {
		l, r := s.ends()
		c.flows.remove(h.flowHash(l, r, s.netns), n)
	}
	for role := range holdersKept {
		if id := s.holder(role); id.PID != 0 {
			c.holders.remove(h.idHash(id), nodeOf(n, role))
		}
	}
	*s = connection{}
	c.slots.give(n)
}

// touched notes who has a connection.
func (h *History) touched(k Kind, at uint64, id ID, e *Connection) {
	n := h.findCookie(e.Cookie)
	if n == 0 && e.Closed != 0 {
		return // it was never established, or is forgotten, and nothing would say that it ends
	}
	if n == 0 || k == Connecting && h.connections.all[n].closed != 0 {
		if n = h.addConnection(at, e.Cookie); n == 0 {
			return
		}
	}
	s := &h.connections.all[n]
	if k == Connecting {
		s.direction = Outbound
		s.flags = s.flags&^swept | h.sweep // a sweep lists those that are being established as well
	}
	h.hold(n, id)
}

// hold notes a holder.
func (h *History) hold(n uint32, id ID) {
	s := &h.connections.all[n]
	last := holdersKept - 1
	if id.PID == 0 {
		return
	}
	for role := range holdersKept {
		switch s.holder(role) {
		case id:
			return
		case ID{}:
			last = role
		default:
			continue
		}
		break
	}
	if old := s.holder(last); old.PID != 0 {
		s.flags |= more
		h.connections.holders.remove(h.idHash(old), nodeOf(n, last))
	}
	s.pids[last], s.starts[last] = id.PID, id.Start
	h.connections.holders.insert(h.idHash(id), nodeOf(n, last))
}

func (h *History) established(at uint64, e *Connection) {
	n := h.findCookie(e.Cookie)
	if n == 0 || h.connections.all[n].closed != 0 {
		if n = h.addConnection(at, e.Cookie); n == 0 {
			return
		}
	}
	h.open(n, at, e)
}

// open enters the ends of a connection, once.
func (h *History) open(n uint32, at uint64, e *Connection) {
	s := &h.connections.all[n]
	if s.opened != 0 {
		return
	}
	s.opened, s.pending, s.netns = at, 0, e.NetNS
	s.local, s.remote = e.Local.Addr().As16(), e.Remote.Addr().As16()
	s.localPort, s.remotePort = e.Local.Port(), e.Remote.Port()
	s.uid = e.UID
	s.flags &^= swept           // it came since, whichever sweep met it before
	if s.direction == Unknown { // both ends may connect at once
		s.direction = e.Direction
	}
	h.connections.flows.insert(h.flowHash(e.Local, e.Remote, e.NetNS), n)
}

func (h *History) closed(at uint64, id ID, e *Connection) {
	n := h.findCookie(e.Cookie)
	if n == 0 {
		return // from before, or there was no place for it
	}
	s := &h.connections.all[n]
	switch {
	case s.closed == 0:
		if s.opened == 0 && e.Sent|e.Received != 0 && h.known != 0 && s.pending > h.known { // that it was established is missing, which nothing else tells
			h.missing++
			h.losses.add(Loss{Ring, s.pending, at})
		}
		h.hold(n, id)
		h.close(n, at)
	case s.flags&unsure != 0: // it went on, though no process had a descriptor as a sweep looked
		h.hold(n, id)
		s.closed, s.flags = at, s.flags&^unsure
	default:
		return
	}
	if s.opened != 0 {
		s.pending, s.received = e.Sent, e.Received
		if s.direction != Outbound {
			s.uid = e.UID
		}
	}
}

// close ends a connection. What was never established is forgotten.
func (h *History) close(n uint32, at uint64) {
	s := &h.connections.all[n]
	if s.opened == 0 {
		h.freeConnection(n)
		return
	}
	s.closed = at
	h.connections.slots.end(n)
}

// metConnection enters a connection that is there, or one more process that holds it.
func (h *History) metConnection(at uint64, id ID, e *Connection) {
	n := h.findCookie(e.Cookie)
	if n == 0 {
		if n = h.addConnection(at, e.Cookie); n == 0 {
			return
		}
		h.connections.all[n].flags |= met
	}
	s := &h.connections.all[n]
	if s.closed != 0 {
		return
	}
	h.open(n, at, e)
	h.hold(n, id)
	s.flags = s.flags&^swept | h.sweep
}
