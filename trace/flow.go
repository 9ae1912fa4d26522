package trace

import (
	"maps"
	"slices"
	"sync"

	"github.com/stopd/stopd/host"
)

// ways say which processes data can have come from to the asked socket (fed), which of those or of their ancestors
// can have commanded it, and which data can have reached from it. Of the last two, some are there only because
// they serve somebody else (served). A service and those of its clients from whom commands would have come, if one
// client could be taken to speak with another, are apart.
type ways struct {
	fed, commanded, reached map[*node]bool
	served                  map[*node]grade
	// firm holds those that were met otherwise than as somebody's service: what they accepted is theirs alone.
	firm  map[*node]bool
	apart [][2]*node
	// spans are when those can have been told anything.
	spans func() map[*node]span
}

// A grade says how another user's process came to be met.
type grade int

const (
	plain  grade = iota // otherwise
	reader              // it reads what is written to a FIFO or queue, as who keeps a log does
	server              // as a service, or beyond one
)

// A step is a way from one process to another, which may leave and enter services (see service).
type step struct {
	to           *node
	leave, enter string
	terminal     host.Object // the master side that is entered
	// beside is true where it leads to the parent, or through a file or memory: if that is for a client of a
	// service, nothing tells for which.
	beside bool
	// grade is what the process is if it is another user's.
	grade grade
}

// flow follows the channels in the direction in which data pass; in weak ways, across services from one client to
// another, and through files and memory, only where it is told to.
func (t *tracer) flow(weak bool) ways {
	into, from := map[*node][]step{}, map[*node][]step{}
	for _, c := range t.channels {
		if !c.Followed || c.keeps && !weak || c.Kind == host.TCP && !c.Remembered && slices.ContainsFunc(c.Ends, t.endLater) {
			continue
		}
		maker, pair := t.makerOf(c), c.pair()
		for _, w := range c.Ends {
			for _, r := range c.Ends {
				a, b := t.at(w), t.at(r)
				if a == nil || b == nil || a == b || t.later(a.Start) || t.later(b.Start) || a.isInit() || b.isInit() || !t.tells(c, pair, w, r, a, b) ||
					c.Remembered && (!overlap(a, b) || t.gone(a) || t.gone(b)) || t.mayBeLater(c, a, b) || t.astray(maker, w, r, a, b, weak) {
					continue
				}
				into[b] = append(into[b], newStep(c, maker, b, r.object, a, w.object))
				onwards := newStep(c, maker, a, w.object, b, r.object)
				if c.Kind == host.FIFO || c.Kind == host.MQueue || c.Kind == host.Msg {
					onwards.grade = reader
				}
				from[a] = append(from[a], onwards)
			}
		}
	}
	var owners []*node
	for _, n := range t.nodes {
		if n.owner {
			owners = append(owners, n)
		}
	}
	w := ways{served: map[*node]grade{}}
	w.fed, _, _, _ = t.reach(owners, weak, func(n *node) []step { return into[n] })
	reached, r, met, _ := t.reach(owners, weak, func(n *node) []step { return from[n] })
	commanded, c, firm, apart := t.reach(owners, weak, func(n *node) []step {
		if n.parent != nil {
			return append([]step{{to: n.parent, beside: true}}, into[n]...)
		}
		return into[n]
	})
	maps.Copy(firm, met)
	w.reached, w.commanded, w.firm, w.apart = reached, commanded, firm, apart
	w.spans = sync.OnceValue(func() map[*node]span { return t.spansOf(owners, weak, into, reached) })
	maps.Copy(w.served, r)
	for n, g := range c {
		if reached[n] {
			g = min(g, r[n])
		}
		w.served[n] = g
	}
	return w
}

// newStep is a step from a process's end of a channel to another's. The maker is whose service for its children the channel is; nil for nobody's.
func newStep(c *Channel, maker, a *node, leave host.Object, b *node, enter host.Object) step {
	s := step{to: b, beside: c.keeps}
	if !c.Remembered || c.Kind != host.TCP { // else of the service's clients then it is the only one; see local
		s.leave = serviceOf(a.end(leave))
	}
	d := b.end(enter)
	s.enter = serviceOf(d)
	switch maker {
	case nil:
	case a:
		s.leave = children
	case b:
		s.enter = children
	}
	if s.enter == clients || s.enter == children {
		s.grade = server
	}
	if d.Side == host.Master {
		s.terminal = d.Object
	}
	return s
}

// pair reports whether a channel has two ends, of which each hears the other alone.
func (c *Channel) pair() bool {
	return slices.ContainsFunc(c.Ends, func(e End) bool { return e.object != c.Ends[0].object })
}

// tells reports whether a process a can tell a process b something through two ends of a channel, which may be a pair.
func (t *tracer) tells(c *Channel, pair bool, w, r End, a, b *node) bool {
	if !w.Mode.Writes() || !r.Mode.Reads() {
		return false
	}
	if pair {
		return w.object != r.object
	}
	return !t.unmeant(c, w, r, a, b)
}

// unmeant reports whether what a user writes to a FIFO or queue is not taken to be meant for another user's process
// that reads it. What one reader takes the others do not get, and who took what is not kept: where a service reads as
// well, the writers mean the service. Who inherited the reader's end, or left it to the reader, is no other reader.
// And who opens a FIFO for reading and writing often only wants to write without waiting, and a reader not to see
// the end.
func (t *tracer) unmeant(c *Channel, w, r End, a, b *node) bool {
	if c.keeps || t.sameUser(a.Process.Process, b.Process.Process) {
		return false
	}
	return slices.ContainsFunc(c.Ends, func(e End) bool {
		if e.is(w) || e.is(r) || !e.Mode.Reads() {
			return false
		}
		n := t.at(e)
		if c.Remembered && n != nil && !overlap(n, b) {
			return false
		}
		return r.Mode == host.ReadWrite || c.Kind != host.Pipe && n != nil && !n.isInit() &&
			!t.sameUser(n.Process.Process, b.Process.Process) && !n.descends(b) && !b.descends(n)
	})
}

// descends reports whether a process is another or a descendant of it.
func (n *node) descends(from *node) bool {
	for a := range n.ancestry() {
		if a == from {
			return true
		}
	}
	return false
}

// reach returns what can be reached from the given processes by steps of next, themselves included, which of that is
// only somebody else's service, which was met otherwise than as a service, and services with clients that were kept apart.
//
// A service speaks with each of its clients, and they do not speak with each other through it: a database or a
// message bus that serves an intruder's process serves everybody. Only what a user runs for themselves can be
// meant to pass on to one of that user's processes what another said, in one control group, which on many systems
// is a login, and only where cross says so. A terminal
// keeps apart those who hold its slave side, whoever holds its master. And a parent may have started its child, and
// a display shares memory, for itself or for one of its clients: which, nothing tells.
func (t *tracer) reach(start []*node, cross bool, next func(*node) []step) (seen map[*node]bool, served map[*node]grade, firm map[*node]bool, apart [][2]*node) {
	type place struct {
		n        *node
		service  string      // entered by it
		terminal host.Object // the last whose master side was entered
		beside   bool        // entered neither as a client nor as one's own
		own      bool        // of the user and session of the one before
		grade    grade       // the worst by which another user's process was entered
	}
	todo := make([]place, 0, len(start))
	for _, n := range start {
		todo = append(todo, place{n: n})
	}
	been := map[place]bool{}
	seen, served, firm = map[*node]bool{}, map[*node]grade{}, map[*node]bool{}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if been[at] {
			continue
		}
		if g, ok := served[at.n]; !ok || at.grade < g {
			served[at.n] = at.grade
		}
		been[at], seen[at.n] = true, true
		firm[at.n] = firm[at.n] || at.service != clients
		for _, s := range next(at.n) {
			same := t.sameUser(at.n.Process.Process, s.to.Process.Process)
			own := t.ofOne(at.n, s.to)
			if s.leave != "" && (s.leave == at.service || s.leave == string(at.terminal) || at.beside) && !(cross && own && at.own) {
				apart = append(apart, [2]*node{at.n, s.to})
				continue
			}
			to := place{s.to, s.enter, at.terminal, s.beside, own, at.grade}
			if !same {
				to.grade = max(at.grade, s.grade)
			}
			if s.terminal != "" {
				to.terminal = s.terminal
			}
			todo = append(todo, to)
		}
	}
	apart = slices.DeleteFunc(apart, func(a [2]*node) bool { return seen[a[1]] })
	return seen, served, firm, apart
}
