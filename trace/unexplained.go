package trace

import (
	"github.com/stopd/stopd/host"
)

// explained reports whether there is a candidate from which the commands can come.
func (t *tracer) explained() bool {
	for _, p := range t.found {
		if p.Corroborated && p.Direction != host.Outbound {
			return true
		}
	}
	return false
}

// unexplained notes, where nothing explains where the commands come from, which ways the system keeps no trace of.
func (t *tracer) unexplained() {
	if t.explained() {
		return
	}
	for _, n := range t.nodes {
		if !t.commanded[n] {
			continue
		}
		for _, d := range n.Descriptors {
			// As mosh has them.
			if d.Kind == host.UDP && !d.Remote.IsValid() && d.Local.Port() != 0 && !d.Local.Addr().IsLoopback() {
				t.gap(n.PID, "senders to "+describe(d), "the system does not keep who sends to a socket that is not connected")
			}
		}
	}
	for _, n := range t.nodes {
		if !n.owner {
			continue
		}
		for range t.nodes { // not for ever: what is not kept apart may look like a circle
			if n.parent == nil || n.parent.isInit() {
				break
			}
			n = n.parent
		}
		if n.parent != nil && n.parent.isInit() {
			t.note(n, "origin", "the first process started or adopted it, and on whose request is not kept")
		}
	}
	for _, a := range t.apart {
		t.note(a[0], "what its clients say to each other", "not considered: the service and these clients are not of one user and control group, and what it passes on is not kept")
	}
}
