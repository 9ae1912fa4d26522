package recorder

import (
	"cmp"
	"slices"
)

// What is kept of a history is pieces of octets, each of so many places of one table, and a summary. They are written one after the other while
// events go on: what was there at the beginning is in them as it was at some moment since, or a loss in the summary says that it gave way.

// places is how many of a table one piece has at most, and maxPiece how many octets a piece can have.
const (
	places   = 2048
	maxPiece = 1 + places*max(processSize+MaxPath, connectionSize)
)

// summary is what the last piece has, of a history in which all is that happened until a time.
func (h *History) summary(at uint64) summary {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.losses.clone()
	if h.joints.setSlots.taken > 0 {
		l.unjoined = at // what processes had is not kept
	}
	return summary{at: at, losses: l}
}

// pieces are how many pieces there are of either table now.
func (h *History) pieces() (connections, processes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := func(used uint32) int { return (int(used) + places - 1) / places }
	return of(h.connections.slots.used), of(h.processes.slots.used)
}

// appendConnections appends the i-th piece of the connections.
func (h *History) appendConnections(b []byte, i int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b = append(b, keptConnections)
	c := &h.connections
	for n := uint32(i*places) + 1; n <= min(uint32((i+1)*places), c.slots.used); n++ {
		if s := &c.all[n]; s.opened != 0 { // one that is not established may never be
			b = appendConnection(b, s)
		}
	}
	return b
}

// appendProcesses appends the i-th piece of the processes.
func (h *History) appendProcesses(b []byte, i int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b = append(b, keptProcesses)
	p := &h.processes
	for n := uint32(i*places) + 1; n <= min(uint32((i+1)*places), p.slots.used); n++ {
		if s := &p.all[n]; s.pid != 0 {
			var path []byte
			if s.path != 0 {
				path = h.paths.at(s.path)
			}
			b = appendProcess(b, s, h.keptFlags(n), path)
		}
	}
	return b
}

// keptFlags are those of a process of which what it had is not kept.
func (h *History) keptFlags(n uint32) uint8 {
	flags := h.processes.all[n].flags & keptFlags
	if h.joints.of[n] != 0 {
		flags |= unjoined
	}
	return flags
}

// A filling enters what was kept into a history that is empty. Nobody is to use the history before [filling.done].
type filling struct {
	h     *History
	sum   summary
	reach uint64 // all that ended later had a place
	full  bool   // something that goes on had none
}

func (f *filling) connection(s connection) {
	h := f.h
	n := h.connections.slots.take()
	if n == 0 {
		f.missing(s.closed)
		return
	}
	h.connections.all[n] = s
}

func (f *filling) process(s process, path []byte) {
	n := f.h.processes.slots.take()
	if n == 0 {
		f.missing(s.exited)
		return
	}
	s.path = f.h.paths.add(path)
	f.h.processes.all[n] = s
}

// missing notes that there is no room for one that ended at a time; 0 is not yet.
func (f *filling) missing(ended uint64) {
	f.reach = max(f.reach, ended)
	f.full = f.full || ended == 0
}

// done makes the indexes, in the order in which all came and ended. Nothing was remembered between when it was kept and now.
func (f *filling) done(now uint64) {
	f.indexConnections()
	f.indexProcesses()
	l := &f.h.losses
	*l = f.sum.losses
	l.forgot(f.reach)
	if f.full {
		l.add(Loss{Full, f.sum.at, now})
	}
	l.add(Loss{Off, f.sum.at, now})
}

func (f *filling) indexConnections() {
	h, c := f.h, &f.h.connections
	order := numbers(c.slots.used)
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(c.all[a].opened, c.all[b].opened), cmp.Compare(c.all[a].cookie, c.all[b].cookie), cmp.Compare(a, b))
	})
	var last connection
	order = slices.DeleteFunc(order, func(n uint32) bool {
		if s := c.all[n]; s.opened != last.opened || s.cookie != last.cookie {
			last = s
			return false
		}
		c.all[n] = connection{} // its place was used again while it was written
		c.slots.give(n)
		return true
	})
	for _, n := range order {
		s := &c.all[n]
		l, r := s.ends()
		c.cookies.insert(h.cookieHash(s.cookie), n)
		c.flows.insert(h.flowHash(l, r, s.netns), n)
		for role := range holdersKept {
			if id := s.holder(role); id.PID != 0 {
				c.holders.insert(h.idHash(id), nodeOf(n, role))
			}
		}
	}
	sortBy(order, func(n uint32) uint64 { return c.all[n].closed })
	for _, n := range order {
		if c.all[n].closed != 0 {
			c.slots.end(n)
		}
	}
}

func (f *filling) indexProcesses() {
	h, p := f.h, &f.h.processes
	order := numbers(p.slots.used)
	sortBy(order, func(n uint32) uint64 { return p.all[n].start })
	order = slices.DeleteFunc(order, func(n uint32) bool {
		if h.find(p.all[n].id()) == 0 {
			p.pids.insert(h.pidHash(p.all[n].pid), n)
			return false
		}
		h.paths.drop(p.all[n].path) // its place was used again while it was written
		p.all[n] = process{}
		p.slots.give(n)
		return true
	})
	for _, n := range order {
		s := &p.all[n]
		if s.parentSlot = h.find(ID{s.parent, s.parentStart}); s.parentSlot != 0 {
			p.all[s.parentSlot].children++
		}
	}
	sortBy(order, func(n uint32) uint64 { return p.all[n].exited })
	for _, n := range order {
		if p.all[n].exited != 0 {
			p.slots.end(n)
		}
	}
}

// numbers are those from 1 to n.
func numbers(n uint32) []uint32 {
	all := make([]uint32, n)
	for i := range all {
		all[i] = uint32(i) + 1
	}
	return all
}

func sortBy(order []uint32, by func(uint32) uint64) {
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(by(a), by(b)) })
}
