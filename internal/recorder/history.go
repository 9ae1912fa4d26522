package recorder

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"unsafe"
)

// A History is what is remembered. Its methods may be called from several goroutines.
type History struct {
	mu          sync.Mutex
	seed        maphash.Seed
	secret      uint64 // see spread
	connections connections
	processes   processes
	joints      joints
	paths       paths
	losses      losses
	missed      bool   // something that goes on had no place
	missing     uint64 // events
	events      uint64 // that told of something new, but for sweeps'
	sweep       uint8  // what the last one marks with
	sweeping    uint64 // when it began
	known       uint64 // since when what is not known was not there before; 0 is not yet
}

// Smallest is the least memory that a history can be made of, in octets.
const Smallest = 1 << 20

// New makes a history, which takes at most so many octets. It begins at the given time.
func New(memory int, begun uint64) (*History, error) {
	if memory < Smallest {
		return nil, fmt.Errorf("make history: %d octets are less than %d", memory, Smallest)
	}
	h := &History{seed: maphash.MakeSeed(), secret: rand.Uint64()}
	h.make(room(memory), begun)
	return h, nil
}

// make makes the tables, with room for so many connections and as many processes.
func (h *History) make(n int, begun uint64) {
	h.connections.make(n)
	h.processes.make(n)
	h.joints.make(n)
	h.paths = newPaths(pathsFor(n), h.seed)
	h.losses = losses{begun: begun}
}

// pathsFor is how many paths are kept of so many processes.
func pathsFor(n int) int { return n/64 + 64 }

// bucketsFor is how many buckets the indexes of so many have.
func bucketsFor(n int) int { return n/3 + 1 }

// room is how many connections, and how many processes, there is room for.
func room(memory int) int {
	taken := func(n int) int {
		return connectionsBytes(n) + processesBytes(n) + jointsBytes(n) + pathsBytes(pathsFor(n))
	}
	n := memory / (taken(1<<20) >> 20)
	for taken(n) > memory {
		n -= n/1024 + 1
	}
	return n
}

// A Fill is how many connections and processes are remembered, how many of each there is room for, since when, how many events have been entered, but for
// what sweeps met, and how many were found to be missing by those that came.
type Fill struct {
	Connections, Processes, Room int
	Begun, Events, Missing       uint64
}

// Fill returns how full the history is.
func (h *History) Fill() Fill {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Fill{h.connections.slots.taken, h.processes.slots.taken, h.room(), h.losses.begun, h.events, h.missing}
}

func (h *History) room() int { return len(h.connections.all) - 1 }

// Apply enters what happened.
func (h *History) Apply(events ...Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range events {
		h.apply(&events[i])
	}
}

func (h *History) apply(e *Event) {
	if e.Kind < ProcessMet {
		h.events++
	}
	switch e.Kind {
	case Forked:
		h.forked(e.At, &e.Process)
	case Executed:
		h.executed(&e.Process)
	case Exited:
		h.exited(e.At, &e.Process)
	case Connecting, Touched:
		h.touched(e.Kind, e.At, e.Process.ID, &e.Connection)
	case Established:
		h.established(e.At, &e.Connection)
	case Closed:
		h.closed(e.At, e.Process.ID, &e.Connection)
	case ProcessMet:
		h.metProcess(e.At, &e.Process)
	case ConnectionMet:
		h.metConnection(e.At, e.Process.ID, &e.Connection)
	case Held:
		h.held(e.At, e)
	}
}

// Lost says that events may be missing that happened between two times.
func (h *History) Lost(from, to uint64) { h.lose(Loss{Ring, from, to}) }

// Off says that nobody looked between two times.
func (h *History) Off(from, to uint64) {
	h.lose(Loss{Off, from, to})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = 0
}

func (h *History) lose(l Loss) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.losses.add(l)
}

// Forget forgets what ended before a time, but for processes that made others that are still remembered.
func (h *History) Forget(before uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := &h.connections; c.slots.first != 0 && c.all[c.slots.first].closed < before; {
		h.dropConnection()
	}
	for p, n := &h.processes, len(h.processes.all); n > 0 && p.slots.first != 0 && p.all[p.slots.first].exited < before; n-- {
		h.dropProcess(1)
	}
	h.dropEmpty()
}

// Missed reports whether something had no place that may go on, and there are places again: a sweep would find it. It is said once.
func (h *History) Missed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.missed || h.connections.slots.all() || h.processes.slots.all() {
		return false
	}
	h.missed = false
	return true
}

// Losses returns what may be missing between two times.
func (h *History) Losses(from, to uint64) []Loss {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.losses.touching(from, to)
}

// Process returns the process with a pid that started between two times, both included; the latest of several.
func (h *History) Process(pid uint32, from, to uint64) (Process, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.findProcess(pid, from, to)
	if n == 0 {
		return Process{}, false
	}
	return h.process(n), true
}

// Latest returns the latest connection of a flow that was established by a time, open or closed; none where very many are later.
func (h *History) Latest(local, remote netip.AddrPort, netns uint32, by uint64) (Connection, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest(&h.connections.flows, h.flowHash(local, remote, netns), func(s *connection) bool { return s.opened <= by && s.is(local, remote, netns) })
}

// ByCookie returns the latest connection of a socket that was established by a time; none where very many are later.
func (h *History) ByCookie(cookie, by uint64) (Connection, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest(&h.connections.cookies, h.cookieHash(cookie), func(s *connection) bool { return s.cookie == cookie && s.opened != 0 && s.opened <= by })
}

// latest returns the first connection of a bucket that is the one. Any user can connect one socket, or the same ends, very many times: beyond the bound there is none.
func (h *History) latest(index *chain, hash uint64, is func(*connection) bool) (Connection, bool) {
	visits := visitsAnswer
	for n := index.first(hash); n != 0 && visits > 0; n = index.next[n] {
		if is(&h.connections.all[n]) {
			return h.connection(n), true
		}
		visits--
	}
	return Connection{}, false
}

// Held returns the connections that a process held at any time and that may have been open at some time between two, both included: those that
// this host opened, or all others. The one that it was first known to hold last comes
// first. They are at most so many; more says that there may be others.
func (h *History) Held(id ID, from, to uint64, outbound bool, most int) (held []Connection, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &h.connections
	visits := visitsAnswer
	for n := c.holders.first(h.idHash(id)); n != 0; n = c.holders.next[n] {
		if visits--; visits < 0 {
			return held, true
		}
		s := &c.all[slotOf(n)]
		if s.holder(roleOf(n)) != id || s.opened == 0 || (s.direction == Outbound) != outbound || !s.within(from, to) {
			continue
		}
		if len(held) == most {
			return held, true
		}
		held = append(held, h.connection(slotOf(n)))
	}
	return held, false
}

// Unheld reports whether a connection that this host did not open, and of which nobody is known to have held it, may have been open at some time between two: one that is
// over, or, where it is asked for, any. It looks at so many only; beyond, there may be one.
func (h *History) Unheld(from, to uint64, open bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &h.connections
	for n := uint32(1); n <= c.slots.used; n++ {
		s := &c.all[n]
		if n > visitsUnheld || s.opened != 0 && s.direction != Outbound && s.pids == [holdersKept]uint32{} && (open || s.closed != 0) && s.within(from, to) {
			return true
		}
	}
	return false
}

// A Sweep compares the history with what there is. What events were lost of is ended by it, and what is there is
// entered. Events may come meanwhile.
func (h *History) Sweep(begun uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// What is there was met by the sweep before, or came since: two marks are enough.
	if h.sweep == odd {
		h.sweep = even
	} else {
		h.sweep = odd
	}
	h.sweeping = begun
}

// Swept ends the sweep. What is open or alive for the history since before it began, and was not met, has ended.
func (h *History) Swept(at uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = at
	c := &h.connections
	for n := uint32(1); n <= c.slots.used; n++ {
		s := &c.all[n]
		if s.cookie == 0 || s.closed != 0 || s.flags&swept == h.sweep || max(s.opened, s.pending) >= h.sweeping {
			continue
		}
		s.flags |= unsure
		h.close(n, at)
	}
	p := &h.processes
	for n := uint32(1); n <= p.slots.used; n++ {
		if s := &p.all[n]; s.pid != 0 && s.exited == 0 && s.flags&swept != h.sweep && s.start < h.sweeping {
			s.flags |= unsure
			h.exit(n, at)
		}
	}
}

func (h *History) idHash(id ID) uint64 { return maphash.Comparable(h.seed, id) }

// together is how many pids, or cookies, that follow each other lie together. The kernel gives each processor as many cookies at once.
const together = 4096

// Pids and cookies are given one after the other. What comes together lies together: a hash of each would have the processor wait for
// memory at each event. Where it lies nobody can tell: who takes numbers until the one comes that he wants makes no chain long. One cookie alone
// can have a long one, of a socket that is connected again and again: events ask for its first, answers go as far as their bound, and none walks it to remove.
func (h *History) spread(n uint64) uint64 {
	where := (n/together + h.secret) * (h.secret | 1)
	where = (where ^ where>>32) * (h.secret | 1)
	return n%together + where>>32
}

func (h *History) pidHash(pid uint32) uint64 { return h.spread(uint64(pid)) }

func (h *History) cookieHash(cookie uint64) uint64 { return h.spread(cookie) }

func (h *History) flowHash(local, remote netip.AddrPort, netns uint32) uint64 {
	var b [40]byte
	l, r := local.Addr().As16(), remote.Addr().As16()
	copy(b[:], l[:])
	copy(b[16:], r[:])
	for i, n := range []uint32{uint32(local.Port())<<16 | uint32(remote.Port()), netns} {
		b[32+4*i], b[33+4*i], b[34+4*i], b[35+4*i] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	}
	return maphash.Bytes(h.seed, b[:])
}

// What both tables note of an entry.
const (
	met    = 1 << iota // it was there already
	unsure             // its end was not noticed
	more               // connections: others held it as well

	odd // the mark of the last sweep that it was met by
	even
	swept = odd | even

	partial  = 1 << 5 // processes: it had more than is kept
	unjoined = 1 << 6 // processes: what it had is forgotten, or there was no place for it
)

// taken is what a slice of n of a type takes.
func taken[T any](n int) int {
	var t T
	return n * int(unsafe.Sizeof(t))
}

// name is a process's, cut at its first zero.
func name(b []byte) []byte {
	if i := slices.Index(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
