package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// previous finds the candidates for the previous host. What one client of a service says to another through it, and
// what is kept in files and memory, is looked at only where nothing else explains where the commands come from.
func (t *tracer) previous() {
	before := len(t.gaps)
	w := t.flow(false)
	t.commanded = map[*node]bool{}
	for n := range w.commanded {
		t.commanded[n] = w.served[n] == plain
	}
	e := t.connections(w, false)
	t.departed(w, &e)
	if len(e.came) > 0 {
		if visits := t.visits(w); len(visits) > 0 {
			t.found, t.crowd, t.gaps = nil, nil, t.gaps[:before]
			t.visitedBy(visits)
			t.previous()
			return
		}
	}
	t.reverse()
	t.loose = !e.firm && t.explained()
	if !e.firm {
		w = t.flow(true)
		e = t.connections(w, true)
		t.departed(w, &e)
	}
	t.impersonal = e.accepted && !e.personal
	t.apart, t.spans = w.apart, w.spans
	t.claims()
}

// connections makes candidates of the connections of whoever can have commanded the asked socket, or been reached
// from it. Of what was found only in weak ways, connections that this host opened are none: of two weak hints
// nothing follows.
func (t *tracer) connections(w ways, weak bool) explanation {
	e := explanation{came: map[*node]bool{}}
	for _, n := range t.nodes {
		if !w.commanded[n] && !w.reached[n] || !slices.ContainsFunc(n.Descriptors, t.remote) {
			continue
		}
		s := w.spans()[n]
		var gone []guest
		if !n.acceptor {
			gone = t.guests(n, s)
		}
		busy := t.hosts(n, gone) > t.opt.Hub
		for _, d := range n.Descriptors {
			if !t.remote(d) || t.cameLater(n, d) || t.openedHere(d) || weak && d.Direction == host.Outbound {
				continue
			}
			accepted := d.Direction != host.Outbound && n.accepts(d)
			if n.acceptor && accepted {
				continue // just accepted, for another child
			}
			if w.served[n] == server || w.served[n] == reader && (d.Direction == host.Outbound || accepted) {
				t.note(n, "connections", "not considered: the process serves others' processes, or is behind one that does, and which of its connections is theirs cannot be told")
				continue
			}
			if busy && accepted {
				t.crowded(n)
				t.crowd = append(t.crowd, Crowded{n.PID, d.Inode})
				e.firm = e.firm || w.firm[n]
				continue
			}
			reason := ReasonInbound
			switch d.Direction {
			case host.Outbound:
				if busy || !w.fed[n] && !w.reached[n] {
					continue // for one of the many, or a mere parent's own business
				}
				reason = ReasonJoinedOutbound
			case host.Inbound:
			default:
				reason = ReasonUnknownDirection
			}
			if d.Direction != host.Outbound {
				if t.since(n, d, s) {
					continue
				}
				e.came[n] = true
				e.firm = e.firm || !accepted || w.firm[n]
				e.accepted = e.accepted || accepted
				e.personal = e.personal || !accepted
			}
			t.candidateBy(d, n.PID, reason)
		}
	}
	return e
}

// An explanation is what is open from which commands can have come.
type explanation struct {
	came map[*node]bool // to whom others' connections came that are candidates
	// accepted is true where a service has accepted one of them, and personal where none has accepted one.
	accepted, personal bool
	// firm is true where they explain the commands. What a service accepted does not where the asked socket is its client's: whoever is at
	// the service's other local clients can have spoken as well. That somebody was there and has left does, as does that there are too many: one of these is meant.
	firm bool
}

// crowded notes that a process has accepted the connections of too many hosts: by one of these the commands came, and nobody else is to be named in their place.
func (t *tracer) crowded(n *node) {
	t.note(n, "connections", fmt.Sprintf("not considered: it has accepted those of more than %d hosts, and which of them is meant cannot be told", t.opt.Hub))
	if !slices.Contains(t.several, n) {
		t.several = append(t.several, n)
	}
}

// reverse makes the asked connection a candidate where another joined one leads out to the same host: this is how a
// reverse telnet looks (thesis section 3.5.3), and then the asked one may be the way in as well.
func (t *tracer) reverse() {
	asked := t.q.Socket.Outside()
	if !t.q.OnBehalf || t.q.Socket.Direction == host.Inbound || len(t.nodes) == 0 || !slices.ContainsFunc(t.found, func(p Previous) bool {
		return p.Direction == host.Outbound && p.Remote.Addr() == asked.Remote.Addr()
	}) {
		return
	}
	t.candidate(Previous{Remote: asked.Remote, Local: asked.Local, PID: t.nodes[0].PID,
		Direction: t.q.Socket.Direction, Corroborated: true, NetNS: t.askedFrom(), Bytes: t.q.Socket.Bytes}, ReasonJoinedOutbound)
}

// asked reports whether a descriptor is the asked socket. One socket may have several connections (MPTCP).
func (t *tracer) asked(d host.Descriptor) bool {
	s := t.q.Socket
	return d.Local == s.Local && d.Remote == s.Remote && (d.NetNS == s.NetNS || d.NetNS == 0 || s.NetNS == 0) ||
		s.Object != "" && d.Object == s.Object
}

// openedHere reports whether a descriptor is the asked socket, and this host is taken to have opened its connection: unless the other
// direction is known, or told by a hint and asked about by another than the host at the other end. Anybody can listen on the port that
// he connects from, and who asks would be named for it.
func (t *tracer) openedHere(d host.Descriptor) bool {
	s := t.q.Socket
	return t.asked(d) && (s.Direction != host.Inbound || s.DirectionSource == host.FromListener && !t.q.OnBehalf)
}

// askedFrom is the network namespace in which the asked connection has the ends that were asked about: where
// they are translated, the daemon's own.
func (t *tracer) askedFrom() uint64 {
	if t.q.Socket.NAT != (host.NAT{}) {
		return t.q.Host.NetNS
	}
	return t.q.Socket.NetNS
}

// note adds a gap of a process, once.
func (t *tracer) note(n *node, what, why string) {
	if g := (host.Gap{PID: n.PID, What: what, Why: why}); !slices.Contains(t.gaps, g) {
		t.gaps = append(t.gaps, g)
	}
}

// candidateBy adds the host at the other end of a process's connection, with the ends that it sees itself.
func (t *tracer) candidateBy(d host.Descriptor, pid int, reason string) {
	p := by(d, pid)
	t.candidate(p, reason)
	if p.Remote != d.Remote || p.Local != d.Local {
		t.candidate(p, ReasonNAT)
	}
}

// by is the host at the other end of a process's connection.
func by(d host.Descriptor, pid int) Previous {
	o := d.Outside()
	return Previous{Remote: o.Remote, Local: o.Local, PID: pid, Direction: d.Direction, Corroborated: true, NetNS: o.NetNS, Bytes: d.Bytes}
}

// candidate adds a candidate, or a reason to one that is known. What is told without this host's end is about the
// one connection that has the other.
func (t *tracer) candidate(p Previous, reason string) {
	for i := range t.found {
		f := &t.found[i]
		if f.Remote != p.Remote || f.Local != p.Local && (f.Local.IsValid() && p.Local.IsValid() || p.Remote.Port() == 0) {
			continue
		}
		if p.Corroborated && (!f.Corroborated || p.Local.IsValid() && !f.Local.IsValid()) {
			// What it had of the user's word does not become the system's, and the end that was not known is.
			f.Local, f.PID, f.Direction, f.NetNS, f.Bytes, f.Corroborated = p.Local, p.PID, p.Direction, p.NetNS, p.Bytes, true
		}
		if !slices.Contains(f.Reasons, reason) {
			f.Reasons = append(slices.Clip(f.Reasons), reason)
		}
		return
	}
	p.Reasons = []string{reason}
	t.found = append(t.found, p)
}

// remote reports whether a descriptor is a connection with another host.
func (t *tracer) remote(d host.Descriptor) bool {
	return connects(d) && d.Peer == "" && !d.Within && (d.Outer != nil || !t.own(d.Remote.Addr()))
}

// connects reports whether a descriptor is a TCP connection.
func connects(d host.Descriptor) bool {
	if d.Kind != host.TCP || !d.Remote.IsValid() || d.Remote.Port() == 0 {
		return false
	}
	switch d.State {
	case "LISTEN", "CLOSED", "SYN-SENT":
		return false
	}
	return true
}

// own reports whether an address is one of this host's. What a connection in another network namespace has may
// mean something else there: where that leads the host says itself.
func (t *tracer) own(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsLoopback() || a == t.q.Socket.Outside().Local.Addr().WithZone("") || slices.Contains(t.q.Host.Addresses, a)
}

// connection returns the connection of the closure that has these ends. Where there is none, or several have them,
// it is one of which nothing else is known.
func (t *tracer) connection(local, remote netip.AddrPort) host.Descriptor {
	ends := host.Descriptor{Local: local, Remote: remote}
	found := ends
	for _, n := range t.nodes {
		for _, d := range n.Descriptors {
			if d.Kind != host.TCP || d.Local != local || d.Remote != remote || d.Object == found.Object {
				continue
			}
			if found.Kind != "" {
				return ends
			}
			found = d
		}
	}
	return found
}
