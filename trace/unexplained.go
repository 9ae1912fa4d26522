package trace

import (
	"fmt"
	"slices"

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

// unexplained notes, where nothing explains where the commands come from, which ways the system keeps no trace of. That a service has a client
// explains them less than that somebody has logged in: he may be idle, while others tell the service something in such ways.
func (t *tracer) unexplained() {
	if t.impersonal || !t.explained() {
		t.unkept()
	}
	if !t.explained() {
		t.origin()
	}
	if t.explained() && !t.loose {
		return
	}
	for _, a := range t.apart {
		t.note(a[0], "what its clients say to each other", "not considered: the service and these clients are not of one user and control group, and what it passes on is not kept")
	}
}

// written reports whether another process can write what one reads from a FIFO or queue.
func (t *tracer) written(n *node, d host.Descriptor) bool {
	holders, err := t.snap.Holders(t.ctx, d.Object)
	return err != nil || slices.ContainsFunc(holders, func(h host.Holder) bool { return h.PID != n.PID && h.Mode.Writes() })
}

// unkept notes the ways in that leave no trace.
func (t *tracer) unkept() {
	for _, n := range t.nodes {
		if !t.commanded[n] || n.Exited != nil {
			continue
		}
		for _, d := range n.Descriptors {
			switch {
			case d.Kind == host.UDP && d.Local.Port() != 0 && !d.Remote.IsValid(), // as mosh has them
				d.Kind == host.Unix && d.Type == "dgram" && d.Path != "" && d.Peer == "",
				d.Kind == host.Raw && !d.Remote.IsValid(), d.Kind == host.OtherSocket && d.Name == "packet":
				t.gap(n.PID, "senders to "+describe(d), "the system does not keep who sends to a socket that is not connected")
			case d.Kind == host.UDP && d.Remote.IsValid() && d.Peer == "" && t.own(d.Remote.Addr()):
				t.gap(n.PID, "senders to "+describe(d), "nobody has the address that it hears from: who had it is not kept")
			case (d.Kind == host.FIFO || d.Kind == host.MQueue) && d.Mode.Reads() && !t.written(n, d):
				t.gap(n.PID, "writers to "+describe(d), "no other process has it open for writing: who has written to it and closed it is not kept")
			case d.Kind == host.UDP && d.Remote.IsValid() && !t.own(d.Remote.Addr()) && d.Peer == "":
				t.gap(n.PID, "other end of "+describe(d), fmt.Sprintf("it speaks with %s by UDP: hosts are asked about TCP connections alone", d.Remote))
			}
		}
	}
	for _, c := range t.channels {
		for _, r := range c.Ends {
			if b := t.at(r); b != nil && c.Followed && t.commanded[b] && slices.ContainsFunc(c.Ends, func(w End) bool {
				a := t.at(w)
				return a != nil && a != b && w.Mode.Writes() && r.Mode.Reads() && t.unmeant(c, w, r, a, b)
			}) {
				t.note(b, "writers to "+describe(b.end(r.object)), "not considered: others' processes read it as well, and what each of them was told is not kept")
			}
		}
	}
}

// origin notes of which processes nothing tells who began them.
func (t *tracer) origin() {
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
}
