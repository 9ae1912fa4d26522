package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// A span is when a process can have been told what the asked connection is for: from its opening, or before that from when a process
// was made for it, until it was over. Zero ends are not known, or now.
type span struct{ from, to time.Time }

// widened is the span that has both; zero ends are the widest.
func (s span) widened(o span) span {
	if o.from.IsZero() || !s.from.IsZero() && o.from.Before(s.from) {
		s.from = o.from
	}
	if o.to.IsZero() || !s.to.IsZero() && o.to.After(s.to) {
		s.to = o.to
	}
	return s
}

// spansOf returns the span of each process that commands can have come from by these steps. Who made a process, and tells it nothing by any channel, has
// told it all by the time it was made: what came to him later is of no account. Those who were reached can have been told all the while. As in reach, nobody is
// come to from a service by which it was entered, unless it is to be crossed.
func (t *tracer) spansOf(owners []*node, cross bool, into map[*node][]step, reached map[*node]bool) map[*node]span {
	opened := t.q.Socket.Opened
	if opened.IsZero() {
		opened = t.q.Socket.Since
	}
	type place struct {
		n       *node
		service string
		beside  bool
	}
	spans, at := map[*node]span{}, map[place]span{}
	var todo []place
	widen := func(p place, s span) {
		was, ok := at[p]
		if ok {
			s = was.widened(s)
		}
		if ok && s == was {
			return
		}
		at[p] = s
		todo = append(todo, p)
		if of, ok := spans[p.n]; ok {
			s = of.widened(s)
		}
		spans[p.n] = s
	}
	for _, n := range owners {
		widen(place{n: n}, span{opened, t.over()})
	}
	for _, n := range t.nodes {
		if reached[n] {
			widen(place{n: n}, span{opened, t.over()})
		}
	}
	for len(todo) > 0 {
		p := todo[0] // in turn: so no process is come to more often than there are processes
		todo = todo[1:]
		for _, s := range into[p.n] {
			if cross || s.leave == "" || s.leave != p.service && !p.beside {
				widen(place{s.to, s.enter, s.beside}, at[p])
			}
		}
		if p.n.parent != nil {
			widen(place{p.n.parent, "", true}, t.beforeMaking(p.n, at[p]))
		}
	}
	return spans
}

// beforeMaking is the span of whoever made a process. Without a recorder it is not known when connections were opened, and it is that of the process.
func (t *tracer) beforeMaking(n *node, s span) span {
	made := t.remembered(n.ID())
	if made == nil || made.Process.Start.IsZero() {
		return s
	}
	at := made.Process.Start
	if s.from.IsZero() || at.Before(s.from) {
		s.from = at
	}
	if s.to.IsZero() || at.Before(s.to) {
		s.to = at
	}
	return s
}

// since reports whether a connection was opened only after its process can have been told anything by it.
func (t *tracer) since(n *node, d host.Descriptor, s span) bool {
	if s.to.IsZero() || !d.Opened.After(s.to) {
		return false
	}
	t.note(n, "connections", fmt.Sprintf("not considered: that with %s came only after all processes were made that it can have been for", d.Remote))
	return true
}

// A guest is a connection that a process held in a span and that is closed.
type guest struct {
	host.Socket
	sure bool // that it was open in the span
}

// guests returns the connections with other hosts that came to a process, were open in a span, and are closed. What is not known is noted: who is open alone
// must not stand for all.
func (t *tracer) guests(n *node, s span) (gone []guest) {
	if s.from.IsZero() {
		return nil
	}
	all, more := t.heldThen(n, s.from, s.to, false)
	for _, c := range all {
		_, sure := c.Within(s.from, s.to)
		switch {
		case n.open(c), t.visited[c.Object]:
		case t.own(c.Remote.Addr()):
			t.note(n, "connections that are closed", "not considered: it held one from this host itself while the connection was open")
		default:
			gone = append(gone, guest{c, sure})
		}
	}
	if more {
		t.note(n, "connections that are closed", "it held more than are known of while the connection was open")
	}
	return gone
}

// departed makes candidates of those who have left, next to whoever is there: at the same process, and where a service has accepted him, or clients of this host have left
// as well, at all from which commands can have come. By which of them these came, nothing tells. Where nobody is there, they are for recall, and explain the commands better than weak ways.
func (t *tracer) departed(w ways, e *explanation) {
	for _, n := range t.nodes {
		there := e.came[n] || e.accepted || len(t.visited) > 0
		if !w.commanded[n] && !w.reached[n] || n.isInit() || n.acceptor || w.served[n] != plain && !e.came[n] || !there && e.firm {
			continue
		}
		gone := t.guests(n, w.spans()[n])
		switch {
		case t.hosts(n, gone) > t.opt.Hub:
			t.crowded(n)
		case len(gone) == 0:
			continue
		case there:
			t.beside(n, gone)
		}
		e.firm = e.firm || w.firm[n]
	}
}

// beside makes candidates of those who have left a process.
func (t *tracer) beside(n *node, gone []guest) {
	for _, g := range gone {
		if !g.sure {
			t.note(n, "connections that are closed", fmt.Sprintf("not considered: when that with %s was opened or ended was not noticed", g.Remote))
			continue
		}
		t.recorded(n, g.Socket)
	}
}

// open reports whether a process has a connection that is remembered still.
func (n *node) open(c host.Socket) bool {
	return slices.ContainsFunc(n.Descriptors, func(d host.Descriptor) bool { return isOf(c, d) && connects(d) })
}

// networks counts the hosts; addresses of one IPv6 network count as one, since each of its hosts may have as many as it likes.
func networks(hosts []netip.Addr) int {
	seen := map[netip.Prefix]bool{}
	for _, a := range hosts {
		bits := 64
		if a = a.Unmap().WithZone(""); a.Is4() {
			bits = 32
		}
		p, _ := a.Prefix(bits)
		seen[p] = true
	}
	return len(seen)
}
