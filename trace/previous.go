package trace

import (
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// previous finds the candidates for the previous host.
func (t *tracer) previous() {
	fed, commanded, reached, served := t.flow()
	t.commanded = map[*node]bool{}
	for n := range commanded {
		t.commanded[n] = !served[n]
	}
	asked := t.q.Socket.Outside()
	reverse := false
	for _, n := range t.nodes {
		if !commanded[n] && !reached[n] {
			continue
		}
		for _, d := range n.Descriptors {
			if !t.remote(d) || t.asked(d) && t.q.Socket.Direction != host.Inbound {
				continue
			}
			if n.acceptor && d.Direction != host.Outbound && n.accepts(d) {
				continue // just accepted, for another child
			}
			if served[n] && (d.Direction == host.Outbound || n.accepts(d)) {
				t.passOver(n)
				continue
			}
			reason := ReasonInbound
			switch d.Direction {
			case host.Outbound:
				if !fed[n] && !reached[n] {
					continue // a mere parent's own business
				}
				reason = ReasonJoinedOutbound
				reverse = reverse || outside(d).Remote.Addr() == asked.Remote.Addr()
			case host.Inbound:
			default:
				reason = ReasonUnknownDirection
			}
			t.candidateBy(d, n.PID, reason)
		}
	}
	// Two joined connections out to one host are how a reverse telnet looks (thesis section 3.5.3): then
	// the asked one may be the way in as well.
	if reverse && t.q.OnBehalf && t.q.Socket.Direction != host.Inbound && len(t.nodes) > 0 {
		t.candidate(Previous{Remote: asked.Remote, Local: asked.Local, PID: t.nodes[0].PID,
			Direction: t.q.Socket.Direction, Corroborated: true, NetNS: t.askedFrom()}, ReasonJoinedOutbound)
	}
	t.claims(commanded)
}

// asked reports whether a descriptor is the asked socket. One socket may have several connections (MPTCP).
func (t *tracer) asked(d host.Descriptor) bool {
	s := t.q.Socket
	return d.Local == s.Local && d.Remote == s.Remote && (d.NetNS == s.NetNS || d.NetNS == 0 || s.NetNS == 0) ||
		s.Object != "" && d.Object == s.Object
}

// askedFrom is the network namespace in which the asked connection has the ends that were asked about: where
// they are translated, the daemon's own.
func (t *tracer) askedFrom() uint64 {
	if t.q.Socket.NAT != (host.NAT{}) {
		return t.q.Host.NetNS
	}
	return t.q.Socket.NetNS
}

// outside returns a connection as it is outside of the host.
func outside(d host.Descriptor) host.Outer {
	if d.Outer != nil {
		return *d.Outer
	}
	return host.Outer{Local: d.Local, Remote: d.Remote, NetNS: d.NetNS}
}

// passOver notes that connections of a service are not candidates: it serves others as well as the process
// that leads to it, and nothing tells whom each belongs to.
func (t *tracer) passOver(n *node) {
	g := host.Gap{PID: n.PID, What: "connections", Why: "not considered: the process serves others' processes, and which of its connections is theirs cannot be told"}
	if !slices.Contains(t.gaps, g) {
		t.gaps = append(t.gaps, g)
	}
}

// datagrams notes where commands may have come in datagrams from other hosts (mosh): of a socket that is not
// connected the system does not keep who sends to it.
func (t *tracer) datagrams() {
	if t.explained() {
		return
	}
	for _, n := range t.nodes {
		for _, d := range n.Descriptors {
			if t.commanded[n] && d.Kind == host.UDP && !d.Remote.IsValid() && d.Local.Port() != 0 && !d.Local.Addr().IsLoopback() {
				t.gap(n.PID, "senders to "+describe(d), "the system does not keep who sends to a socket that is not connected")
			}
		}
	}
}

// candidateBy adds the host at the other end of a process's connection, with the ends that it sees itself.
func (t *tracer) candidateBy(d host.Descriptor, pid int, reason string) {
	o := outside(d)
	p := Previous{Remote: o.Remote, Local: o.Local, PID: pid, Direction: d.Direction, Corroborated: true, NetNS: o.NetNS}
	t.candidate(p, reason)
	if o.Remote != d.Remote || o.Local != d.Local {
		t.candidate(p, ReasonNAT)
	}
}

// candidate adds a candidate, or a reason to one that is known. What is told without this host's end is about the
// one connection that has the other.
func (t *tracer) candidate(p Previous, reason string) {
	for i := range t.found {
		f := &t.found[i]
		if f.Remote != p.Remote || f.Local != p.Local && (f.Local.IsValid() && p.Local.IsValid() || p.Remote.Port() == 0) {
			continue
		}
		if p.Corroborated && !f.Corroborated {
			// What it had of the user's word does not become the system's.
			f.Local, f.PID, f.Direction, f.NetNS, f.Corroborated = p.Local, p.PID, p.Direction, p.NetNS, true
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
	if d.Kind != host.TCP || d.Peer != "" || d.Within || !d.Remote.IsValid() || d.Remote.Port() == 0 {
		return false
	}
	switch d.State {
	case "LISTEN", "CLOSED", "SYN-SENT":
		return false
	}
	return d.Outer != nil || !t.own(d.Remote.Addr())
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

// A step is a way from one process to another, which may leave and enter services (see service).
type step struct {
	to           *node
	leave, enter string
}

// flow says which processes data can have come from to the asked socket (fed), which of those or of their
// ancestors can have commanded it, and which data can have reached from it. Of the last two, some are
// there only because they serve somebody else (served).
func (t *tracer) flow() (fed, commanded, reached, served map[*node]bool) {
	into, from := map[*node][]step{}, map[*node][]step{}
	for _, c := range t.channels {
		if !c.Followed {
			continue
		}
		twoObjects := slices.ContainsFunc(c.Ends, func(e End) bool { return e.object != c.Ends[0].object })
		for _, w := range c.Ends {
			for _, r := range c.Ends {
				a, b := t.byPID[w.PID], t.byPID[r.PID]
				if a == nil || b == nil || a == b || a.isInit() || b.isInit() ||
					!w.Mode.Writes() || !r.Mode.Reads() || twoObjects && w.object == r.object {
					continue
				}
				ours, theirs := b.service(r.object), a.service(w.object)
				into[b] = append(into[b], step{to: a, leave: ours, enter: theirs})
				from[a] = append(from[a], step{to: b, leave: theirs, enter: ours})
			}
		}
	}
	var owners []*node
	for _, n := range t.nodes {
		if n.owner {
			owners = append(owners, n)
		}
	}
	fed, _ = reach(owners, func(n *node) []step { return into[n] })
	reached, r := reach(owners, func(n *node) []step { return from[n] })
	commanded, c := reach(owners, func(n *node) []step {
		if n.parent != nil {
			return append([]step{{to: n.parent}}, into[n]...)
		}
		return into[n]
	})
	served = map[*node]bool{}
	for n := range commanded {
		served[n] = c[n] && (r[n] || !reached[n])
	}
	for n := range reached {
		served[n] = r[n] && (c[n] || !commanded[n])
	}
	return fed, commanded, reached, served
}

// accepts reports whether a connection came to a port that the process itself listens on.
func (n *node) accepts(d host.Descriptor) bool {
	return slices.ContainsFunc(n.Descriptors, func(l host.Descriptor) bool {
		return l.Kind == d.Kind && l.Listening() && l.Local.Port() == d.Local.Port()
	})
}

// service names what an object of a process belongs to where that has several clients: the sockets that its
// listeners accepted, whichever of them (a database has one for each family), one that is not connected and
// hears from many, a terminal. Else it is empty.
func (n *node) service(o host.Object) string {
	for _, d := range n.Descriptors {
		switch {
		case d.Object != o:
		case d.Kind == host.Unix && d.Path != "", d.Kind.Inet() && d.Direction != host.Outbound:
			return clients
		case d.Kind == host.PTY, d.Peer == "":
			return string(o)
		}
	}
	return ""
}

// clients is the service of whatever a process's listeners accepted.
const clients = "clients"

// reach returns what can be reached from the given processes by steps of next, themselves included, and
// which of that is only somebody else's service. A service speaks with each of its clients, and they do not
// speak with each other through it: a database or a message bus that serves an intruder's process serves
// everybody. Only what a user runs for themselves is taken to pass on what it is told.
func reach(start []*node, next func(*node) []step) (seen, served map[*node]bool) {
	type place struct {
		n       *node
		service string
		foreign bool // entered as a client by another user's process
	}
	var todo []place
	for _, n := range start {
		todo = append(todo, place{n: n})
	}
	been := map[place]bool{}
	seen, served = map[*node]bool{}, map[*node]bool{}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if been[at] {
			continue
		}
		served[at.n] = at.foreign && (served[at.n] || !seen[at.n])
		been[at], seen[at.n] = true, true
		for _, s := range next(at.n) {
			if s.leave == "" || s.leave != at.service || sameUser(at.n.Process.Process, s.to.Process.Process) {
				todo = append(todo, place{s.to, s.enter, at.foreign || s.enter == clients && !sameUser(at.n.Process.Process, s.to.Process.Process)})
			}
		}
	}
	return seen, served
}

// sameUser reports whether two processes are one user's, as far as is known. Of what root runs only those in
// one control group are: a system's services have their own each, as have logins.
func sameUser(a, b host.Process) bool {
	if a.EUID == nil || b.EUID == nil {
		return true
	}
	return *a.EUID == *b.EUID && (*a.EUID != 0 || a.Cgroup == b.Cgroup)
}
