package trace

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// recall makes candidates of connections that were held by those from whom the commands came, where nothing that is
// open explains them: those that were held as the asked connection was established, by who shared something with others (see joined) while
// it was open, else the first that whoever made a process held as it made it. Of an asked connection that is closed, what those
// held who shared something counts beside what is open.
//
// A login without a port, or without this host's end, explains them but cannot be asked about.
func (t *tracer) recall() {
	connected := t.connected()
	if connected && !t.q.Socket.Recalled {
		return
	}
	t.joined(t.q.Socket.Opened, t.over())
	var commanded []*node
	for _, n := range t.nodes {
		if t.commanded[n] && !n.isInit() {
			commanded = append(commanded, n)
		}
	}
	if !t.q.Socket.Opened.IsZero() {
		t.heldMeanwhile(commanded, connected)
	}
	if commanded = t.heldByMakers(commanded); !t.explained() {
		t.noteUnexplained(commanded)
	}
}

// heldMeanwhile makes candidates of what was held while the asked connection was open, beside what is open or in its place.
func (t *tracer) heldMeanwhile(commanded []*node, beside bool) {
	at := t.q.Socket.Opened
	for _, n := range commanded {
		if beside && !n.joined || t.unclear(n) || t.blind || n.acceptor {
			continue
		}
		switch found := t.held(n, at, at, "as the connection was established", false); {
		case found, n.owner && !n.joined:
			t.besides(n) // it may have been kept for whoever came next
		case n.joined && !n.led: // a listener may have been there before its client was
			t.held(n, at, t.over(), "while the connection was open", false)
		}
		if t.told[n] && n.joined && !n.led {
			t.held(n, at, t.over(), "while the connection was open", true)
		}
	}
}

// besides makes candidates of those who have left a process that was not for one host alone.
func (t *tracer) besides(n *node) {
	if !t.unclear(n) {
		t.beside(n, t.guests(n, t.spans()[n]))
	}
}

// heldByMakers makes candidates of what those held who made the processes, from one to the next, until one is found. It returns who has been asked about.
// Who began something need not be who directs it, so who has left it to another is asked about last.
func (t *tracer) heldByMakers(commanded []*node) []*node {
	for _, n := range slices.Clone(commanded) {
		var typed *host.Process // the first at the nearest terminal that one of these has the master of
		for range maxAncestry {
			if t.connected() || t.unclear(n) || t.blind {
				break
			}
			m := t.maker(n)
			if m == nil || m.isInit() {
				break
			}
			if !slices.Contains(commanded, m) {
				commanded = append(commanded, m)
			}
			child := n
			n.parent, n = m, m
			if made := t.remembered(child.ID()); made != nil {
				if typed == nil && child.onTerminalOf(m) {
					typed = &made.Process
				}
				t.toldThen(m, made.Process.Start, fmt.Sprintf("as process %d was made", child.PID), typed)
			}
		}
	}
	return commanded
}

// noteUnexplained writes down what may be missing where nothing is known from which the commands can come.
func (t *tracer) noteUnexplained(commanded []*node) {
	for _, n := range t.nodes {
		if n.joined && !t.commanded[n] && t.gone(n) {
			t.note(n, "what it shared with others", "not considered: it had ended before the connection was established, and when it told others what is not remembered")
		}
	}
	for _, n := range commanded {
		t.noteOpened(n)
		switch {
		case !t.ofOwner(n) && n.joined:
			t.note(n, "what it shared with others", "not considered: it is another user's, and what it did for whom is not remembered")
		case n.Exited != nil:
			t.note(n, "what it shared with others", "it has ended: remembered are pipes, UNIX sockets and terminals that it had as its program began, as it made another process, and as it ended")
		}
		if r := t.remembered(n.ID()); r != nil {
			for _, g := range r.Gaps {
				t.note(n, g.What, g.Why)
			}
		}
	}
}

// noteOpened writes down which connections a process had opened itself and held as the asked one was established: a shell may have its commands from
// one, and most programs that open one have no commands from it.
func (t *tracer) noteOpened(n *node) {
	at := t.q.Socket.Opened
	if at.IsZero() || n.acceptor {
		return
	}
	all, _ := t.heldThen(n, at, at, true)
	var hosts []netip.Addr
	for _, s := range all {
		named := slices.ContainsFunc(t.found, func(p Previous) bool { return p.Remote == s.Remote && p.Local == s.Local })
		if a := s.Remote.Addr(); !named && !t.own(a) && !slices.Contains(hosts, a) {
			hosts = append(hosts, a)
		}
	}
	if len(hosts) > 0 {
		t.note(n, "connections that are closed", fmt.Sprintf("not considered: it had opened those with %s itself, and whether commands came by one is not remembered", list(hosts)))
	}
}

// onTerminalOf reports whether a process has a terminal of which another has the master.
func (n *node) onTerminalOf(m *node) bool {
	return slices.ContainsFunc(n.Descriptors, func(d host.Descriptor) bool {
		return d.Kind == host.PTY && d.Side == host.Slave && d.Peer != "" && m.end(d.Peer).Side == host.Master
	})
}

// left reports whether all connections that a process held at a time were closed as another was made, the first at a terminal that was begun by it, or
// were for one before. Who was at the terminal then did not come by them.
func (t *tracer) left(n *node, at time.Time, when string, typed *host.Process) bool {
	if slices.Contains(t.absent, n) {
		return true
	}
	if typed == nil {
		return false
	}
	all, _ := t.heldThen(n, at, at, false)
	if len(all) == 0 || slices.ContainsFunc(all, func(s host.Socket) bool { maybe, _ := s.Within(typed.Start, typed.Start); return maybe }) {
		return false
	}
	t.note(n, "connections that are closed", fmt.Sprintf("not considered: all that it held %s were closed when process %d was, by whoever was at its terminal", when, typed.PID))
	t.absent = append(t.absent, n)
	return true
}

// toldThen makes candidates of the connections that a process held at a time, else of those that were held by who shared something with it then; see
// joined. Whoever was at a terminal later came by others; typed is the first process there, nil for none.
func (t *tracer) toldThen(n *node, at time.Time, when string, typed *host.Process) {
	if t.left(n, at, when, typed) {
		return
	}
	t.then = at
	before := maps.Clone(t.commanded)
	ends := t.ends()
	if t.local(n, at, at); t.ends() > ends {
		t.direct()
	}
	if t.held(n, at, at, when, false) {
		return
	}
	if n.Exited != nil || n.led {
		t.joined(at, at)
	}
	for _, m := range t.nodes {
		if t.commanded[m] && !before[m] && m.joined && !t.left(m, at, when, typed) {
			t.held(m, at, at, when, false)
		}
	}
}

// connected reports whether there is a candidate from which the commands can come and whose connection is known.
func (t *tracer) connected() bool {
	return slices.ContainsFunc(t.found, func(p Previous) bool { return p.Corroborated && p.Direction != host.Outbound && p.Local.IsValid() })
}

// unclear reports whether commands came to a process, or to one that descends from it, by connections of which nothing tells which is meant, or did not by
// those that were known (see left). Who made it, or an ancestor, is not to be named in their place.
func (t *tracer) unclear(n *node) bool {
	of := func(u *node) bool { return u.descends(n) }
	return slices.ContainsFunc(t.several, of) || slices.ContainsFunc(t.absent, of)
}
