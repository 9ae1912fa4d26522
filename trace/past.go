package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// What a host remembers leads on where what there is does not: to who made a process, whoever has adopted it since, and to
// connections that are closed (docs/decisions/0070-recorder.md).

// jointSize is about what a joint, or who has its other end, takes.
const jointSize = 64

// remembered returns what is remembered of a process; nil for nothing.
func (t *tracer) remembered(id host.ID) *host.Remembered {
	if id.Start == 0 {
		return nil // a pid alone may be several
	}
	if r, ok := t.past[id]; ok {
		return r
	}
	var found *host.Remembered
	r, err := t.snap.Remembered(t.ctx, id)
	switch {
	case err == nil:
		found = &r
		for _, j := range r.Joints {
			t.bytes += jointSize * (1 + len(j.With))
		}
	case !errors.Is(err, host.ErrNotFound):
		t.gap(id.PID, "the past", err.Error())
	}
	t.past[id] = found
	return found
}

// parentOf returns the parent of a process and how that is known: of one that has ended it is remembered. False where it
// is not known.
func (t *tracer) parentOf(n *node) (host.ID, string, bool) {
	if n.Exited != nil {
		r := t.remembered(n.ID())
		return r.Parent, ByRecordedParent, r.Parent.PID != 0
	}
	if n.PPID == nil {
		return host.ID{}, "", false
	}
	return host.ID{PID: *n.PPID}, ByParent, true
}

// maker returns who made a process, which another may have adopted since; it is added to the closure where it is not in it. Nil
// where it is not known.
func (t *tracer) maker(n *node) *node {
	made := t.remembered(n.ID())
	if made == nil || made.Parent.PID == 0 || n.parent != nil && n.parent.ID() == made.Parent {
		return n.parent
	}
	id, via := made.Parent, Via{From: new(n.Index), By: ByRecordedParent}
	if m := t.node(id); m != nil {
		return m
	}
	if m := t.addEnded(id, via); m != nil {
		return m
	}
	if p, err := t.snap.Process(t.ctx, id.PID); err == nil && p.ID() == id {
		return t.add(id.PID, via)
	}
	t.gap(n.PID, "parent", fmt.Sprintf("process %d, which made it, has ended and is not remembered", id.PID))
	return nil
}

// node returns the process of the closure with an ID; nil for none. With a Start of 0 it is the living one.
func (t *tracer) node(id host.ID) *node {
	if n := t.byPID[id.PID]; n != nil && (id.Start == 0 || n.StartTicks == 0 || id.Start == n.StartTicks) {
		return n
	}
	return t.ended[id]
}

// addEnded adds a process that has ended and is remembered; nil for any other.
func (t *tracer) addEnded(id host.ID, via Via) *node {
	r := t.remembered(id)
	if r == nil || r.Process.Exited == nil || t.bound() {
		return nil
	}
	p := r.Process
	for _, j := range r.Joints {
		p.Descriptors = append(p.Descriptors, j.Descriptor)
	}
	return t.enter(p, via)
}

// heldBy reports whether a process held a connection with another host that came in by a port.
func (t *tracer) heldBy(n *node, port uint16) bool {
	r := t.remembered(n.ID())
	return r != nil && slices.ContainsFunc(r.Held, func(s host.Socket) bool {
		return s.Direction == host.Inbound && s.Local.Port() == port && !t.own(s.Remote.Addr())
	})
}

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
	t.joined()
	var commanded []*node
	for _, n := range t.nodes {
		if t.commanded[n] && !n.isInit() {
			commanded = append(commanded, n)
		}
	}
	if at := t.q.Socket.Opened; !at.IsZero() {
		for _, n := range commanded {
			if connected && !n.joined {
				continue
			}
			// A listener may have been there before its client was.
			if !t.held(n, at, at, "as the connection was established", false) && n.joined {
				t.held(n, at, t.q.Socket.Closed, "while the connection was open", false)
			}
			if t.told[n] && n.joined {
				t.held(n, at, t.q.Socket.Closed, "while the connection was open", true)
			}
		}
	}
	// Who began something need not be who directs it, so who has left it to another is asked about last.
	for _, n := range slices.Clone(commanded) {
		for range maxAncestry {
			m := t.maker(n)
			if m == nil || m.isInit() || t.connected() {
				break
			}
			if made := t.remembered(n.ID()); made != nil {
				t.held(m, made.Process.Start, made.Process.Start, fmt.Sprintf("as process %d was made", n.PID), false)
			}
			if !slices.Contains(commanded, m) {
				commanded = append(commanded, m)
			}
			n.parent, n = m, m
		}
	}
	if t.explained() {
		return
	}
	for _, n := range commanded {
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

// connected reports whether there is a candidate from which the commands can come and whose connection is known.
func (t *tracer) connected() bool {
	return slices.ContainsFunc(t.found, func(p Previous) bool { return p.Corroborated && p.Direction != host.Outbound && p.Local.IsValid() })
}

// held makes candidates of the connections that a process held between two times, of which the second may be zero for now, and that
// another host opened, or this one. Where they are of several hosts, nothing tells which is meant. It returns whether there are any.
func (t *tracer) held(n *node, from, to time.Time, when string, outbound bool) bool {
	r := t.remembered(n.ID())
	if r == nil || n.acceptor {
		return false
	}
	var held []host.Socket
	var hosts []netip.Addr
	for _, s := range r.Held {
		if (s.Direction == host.Outbound) != outbound || !to.IsZero() && s.Opened.After(to) || !s.Closed.IsZero() && s.Closed.Before(from) || t.own(s.Remote.Addr()) ||
			s.Object != "" && s.Object == t.q.Socket.Object {
			continue
		}
		held = append(held, s)
		if !slices.Contains(hosts, s.Remote.Addr()) {
			hosts = append(hosts, s.Remote.Addr())
		}
	}
	if len(hosts) > 1 {
		t.note(n, "connections that are closed", fmt.Sprintf("not considered: it held those of %d hosts %s, and which of them is meant cannot be told", len(hosts), when))
		return true
	}
	if len(held) == 1 && !outbound {
		// A login that the system knows without its port was by this one.
		for i := range t.found {
			if f := &t.found[i]; f.Corroborated && f.Remote == netip.AddrPortFrom(hosts[0], 0) {
				f.Remote = held[0].Remote
			}
		}
	}
	for _, s := range held {
		p := Previous{Remote: s.Remote, Local: s.Local, PID: n.PID, Direction: s.Direction, Corroborated: true, NetNS: s.NetNS, Bytes: s.Bytes}
		t.candidate(p, ReasonRecorded)
		switch s.Direction {
		case host.Inbound:
		case host.Outbound:
			t.candidate(p, ReasonJoinedOutbound)
		default:
			t.candidate(p, ReasonUnknownDirection)
		}
	}
	return len(held) > 0
}
