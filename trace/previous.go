package trace

import (
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// previous finds the candidates for the previous host.
func (t *tracer) previous() {
	fed, commanded, reached := t.flow()
	asked := t.q.Socket.Flow()
	reverse := false
	for _, n := range t.nodes {
		if !commanded[n] && !reached[n] {
			continue
		}
		for _, d := range n.Descriptors {
			if !t.remote(d) || d.Local == asked.Local && d.Remote == asked.Remote && t.q.Socket.Direction != host.Inbound {
				continue
			}
			reason := ReasonInbound
			switch d.Direction {
			case host.Outbound:
				if !fed[n] && !reached[n] {
					continue // a mere parent's own business
				}
				reason = ReasonJoinedOutbound
				reverse = reverse || d.Remote.Addr() == asked.Remote.Addr()
			case host.Inbound:
			default:
				reason = ReasonUnknownDirection
			}
			t.candidate(Previous{Remote: d.Remote, Local: d.Local, PID: n.PID, Direction: d.Direction, Corroborated: true}, reason)
		}
	}
	// Two joined connections out to one host are how a reverse telnet looks (thesis section 3.5.3): then
	// the asked one may be the way in as well.
	if reverse && t.q.OnBehalf && t.q.Socket.Direction != host.Inbound && len(t.nodes) > 0 {
		t.candidate(Previous{Remote: asked.Remote, Local: asked.Local, PID: t.nodes[0].PID,
			Direction: t.q.Socket.Direction, Corroborated: true}, ReasonJoinedOutbound)
	}
	t.logins(commanded)
}

// candidate adds a candidate, or a reason to one that is known.
func (t *tracer) candidate(p Previous, reason string) {
	for i, f := range t.found {
		if f.Remote == p.Remote && f.Local == p.Local {
			if !slices.Contains(f.Reasons, reason) {
				t.found[i].Reasons = append(f.Reasons, reason)
			}
			return
		}
	}
	p.Reasons = []string{reason}
	t.found = append(t.found, p)
}

// remote reports whether a descriptor is a connection with another host.
func (t *tracer) remote(d host.Descriptor) bool {
	if d.Kind != host.TCP || d.Peer != "" || !d.Remote.IsValid() || d.Remote.Port() == 0 {
		return false
	}
	switch d.State {
	case "LISTEN", "CLOSED", "SYN-SENT":
		return false
	}
	return !t.own(d.Remote.Addr())
}

// own reports whether an address is one of this host's.
func (t *tracer) own(a netip.Addr) bool {
	a = a.WithZone("")
	return a.IsLoopback() || a == t.q.Socket.Local.Addr().WithZone("") || slices.Contains(t.q.Host.Addresses, a)
}

// flow says which processes data can have come from to the asked socket (fed), which of those or of their
// ancestors can have commanded it, and which data can have reached from it.
func (t *tracer) flow() (fed, commanded, reached map[*node]bool) {
	into, from := map[*node][]*node{}, map[*node][]*node{}
	for _, c := range t.channels {
		if !c.Followed {
			continue
		}
		for _, w := range c.Ends {
			for _, r := range c.Ends {
				a, b := t.byPID[w.PID], t.byPID[r.PID]
				if a == nil || b == nil || a == b || !w.Mode.Writes() || !r.Mode.Reads() || c.twoSided() && w.side == r.side {
					continue
				}
				into[b] = append(into[b], a)
				from[a] = append(from[a], b)
			}
		}
	}
	var owners []*node
	for _, n := range t.nodes {
		if n.owner {
			owners = append(owners, n)
		}
	}
	fed = reach(owners, func(n *node) []*node { return into[n] })
	reached = reach(owners, func(n *node) []*node { return from[n] })
	commanded = reach(owners, func(n *node) []*node {
		if n.parent != nil {
			return append([]*node{n.parent}, into[n]...)
		}
		return into[n]
	})
	return fed, commanded, reached
}

// twoSided reports whether the two ends of a channel are two objects.
func (c *Channel) twoSided() bool {
	return slices.ContainsFunc(c.Ends, func(e End) bool { return e.side == 1 })
}

// reach returns what can be reached from the given processes by steps of next, themselves included.
func reach(start []*node, next func(*node) []*node) map[*node]bool {
	seen := map[*node]bool{}
	todo := slices.Clone(start)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[n] {
			seen[n] = true
			todo = append(todo, next(n)...)
		}
	}
	return seen
}

// logins adds what the environment of the processes that command the asked socket says of their login.
// The user can have written it, so alone it is the user's word.
func (t *tracer) logins(commanded map[*node]bool) {
	for _, n := range t.nodes {
		l := n.Login
		if !commanded[n] || l == nil || l.Source != host.LoginEnvironment || !l.Remote.IsValid() || t.own(l.Remote.Addr()) {
			continue
		}
		t.candidate(Previous{Remote: l.Remote, Local: l.Local, PID: n.PID, Direction: host.Inbound}, ReasonSSHConnection)
	}
}
