package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
)

// What a host remembers leads on where what there is does not: to who made a process, whoever has adopted it since, and to
// connections that are closed (docs/decisions/0070-recorder.md).

// jointSize is about what a joint, or who has its other end, takes.
const jointSize = 64

// pastProcesses is how many processes a trace asks for that are remembered, for each that it may read.
const pastProcesses = 4

// remembered returns what is remembered of a process; nil for nothing. At a bound it is not known; see blind.
func (t *tracer) remembered(id host.ID) *host.Remembered {
	if id.Start == 0 {
		return nil // a pid alone may be several
	}
	if r, ok := t.past[id]; ok {
		return r
	}
	if most := pastProcesses * t.opt.Processes; t.blind || len(t.past) >= most || t.ctx.Err() != nil {
		if !t.blind && !t.bound() {
			t.gap(0, "the past", fmt.Sprintf("bound: %d processes", most))
		}
		t.blind = true
		return nil
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

// heldBy reports whether a process held a connection with another host that came in by a port, or may have.
func (t *tracer) heldBy(n *node, port uint16) bool {
	r := t.remembered(n.ID())
	return r == nil && t.blind || r != nil && (r.Cut || slices.ContainsFunc(r.Held, func(s host.Socket) bool {
		return s.Direction == host.Inbound && s.Local.Port() == port && !t.own(s.Remote.Addr())
	}))
}

// acceptedFor reports whether a process that has ended, of which it is not known where it listened, accepted a connection for a process that
// it made: that one held it, which was there before, and the other is not known to have.
func (t *tracer) acceptedFor(n, child *node) bool {
	r, c := t.remembered(n.ID()), t.remembered(child.ID())
	return (r == nil || c == nil) && t.blind || r != nil && c != nil && slices.ContainsFunc(c.Held, func(s host.Socket) bool {
		return s.Direction == host.Inbound && !s.Opened.IsZero() && s.Opened.Before(c.Process.Start) && !t.own(s.Remote.Addr()) &&
			!slices.ContainsFunc(r.Held, func(o host.Socket) bool { return o.Object == s.Object })
	})
}

// heldThen returns the connections that may have been open between two times and that a process held: those that are remembered, and what a living one
// has, of which that need not be. more says that there may be others.
func (t *tracer) heldThen(n *node, from, to time.Time, outbound bool) (all []host.Socket, more bool) {
	if n.StartTicks == 0 {
		return nil, false // a pid alone may be several
	}
	all, more, err := t.snap.Held(t.ctx, n.ID(), from, to, outbound)
	if err != nil {
		if !errors.Is(err, host.ErrNotFound) {
			t.note(n, "the past", err.Error())
		}
		return nil, false
	}
	r := t.remembered(n.ID())
	for _, d := range n.Descriptors {
		if n.Exited != nil || r == nil || !connects(d) || t.asked(d) || (d.Direction == host.Outbound) != outbound ||
			slices.ContainsFunc(r.Held, func(s host.Socket) bool { return s.Closed.IsZero() && isOf(s, d) }) {
			continue
		}
		o := d.Outside()
		s := host.Socket{Local: o.Local, Remote: o.Remote, Direction: d.Direction, NetNS: o.NetNS, Bytes: d.Bytes, Object: d.Object, Opened: d.Opened}
		if d.Peer != "" || d.Within {
			s.Remote = netip.AddrPortFrom(netip.IPv6Loopback(), d.Remote.Port()) // whatever a container has for this host
		}
		if maybe, _ := s.Within(from, to); maybe {
			all = append(all, s)
		}
	}
	return slices.DeleteFunc(all, func(s host.Socket) bool {
		return s.Object != "" && s.Object == t.q.Socket.Object || s.Cookie != 0 && s.Cookie == t.q.Socket.Cookie
	}), more
}

// held makes candidates of the connections that a process held between two times, of which the second may be zero for now, and that
// another host opened, or this one. Where they are of several hosts, or may be, nothing tells which is meant: see unclear. What came from
// this host itself to the same port counts as one more, since the commands may have come by that, and so does what need not have been open then
// since it was not noticed when it ended. It returns whether there are any.
func (t *tracer) held(n *node, from, to time.Time, when string, outbound bool) bool {
	if n.acceptor {
		return false
	}
	all, more := t.heldThen(n, from, to, outbound)
	var held []host.Socket // for sure
	var hosts []netip.Addr
	var ports, own []uint16 // that other hosts, and this one itself, came to
	for _, s := range all {
		if t.own(s.Remote.Addr()) {
			if !outbound && !t.ledBy[s.Object] {
				own = append(own, s.Local.Port())
			}
			continue
		}
		if _, sure := s.Within(from, to); sure {
			held = append(held, s)
		}
		ports = append(ports, s.Local.Port())
		if !slices.Contains(hosts, s.Remote.Addr()) {
			hosts = append(hosts, s.Remote.Addr())
		}
	}
	// An asked connection that came in is one of those by which commands can have come.
	if q := t.q.Socket; len(hosts) > 0 && n.owner && !outbound && q.Recalled && q.Direction == host.Inbound && !from.Before(q.Opened) && !slices.Contains(hosts, q.Remote.Addr()) {
		hosts = append(hosts, q.Remote.Addr())
	}
	var why string
	switch {
	case len(hosts) > 1:
		why = fmt.Sprintf("it held those of %d hosts %s (%s), and which of them is meant cannot be told", len(hosts), when, list(hosts))
	case len(own) > 0 && (len(ports) == 0 || slices.ContainsFunc(ports, func(p uint16) bool { return slices.Contains(own, p) })):
		why = "it held one from this host itself " + when + ", and by which the commands came cannot be told"
	case more:
		why = "it held more than are known of, and " + when + " it may have held others"
	case len(hosts) > 0 && len(held) == 0:
		why = "when it was opened or ended was not noticed, and it may have been open or not " + when
	}
	if why != "" {
		if len(hosts) == 1 {
			why += "; known is " + list(hosts)
		}
		t.note(n, "connections that are closed", "not considered: "+why)
		t.several = append(t.several, n)
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
		t.recorded(n, s)
	}
	if r := t.remembered(n.ID()); r != nil && len(held) > 0 {
		for _, g := range r.Gaps {
			t.note(n, g.What, g.Why) // that it held no other is as sure as this
		}
	}
	return len(held) > 0
}

// recorded makes a candidate of a connection that a process held.
func (t *tracer) recorded(n *node, s host.Socket) {
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

// list is the first few of the addresses.
func list(addrs []netip.Addr) string {
	const most = 8
	var s []string
	for _, a := range addrs[:min(len(addrs), most)] {
		s = append(s, a.String())
	}
	if len(addrs) > most {
		s = append(s, "and others")
	}
	return strings.Join(s, ", ")
}

// apartFrom reports whether who had the asked connection last had it of another user's process otherwise than by descent: who is sent a
// descriptor that he does not want, and root who ends a connection, are those who ended it. Of whom nothing is remembered any more it may be so.
func (t *tracer) apartFrom(first, last host.ID) bool {
	a, b := t.remembered(first), t.remembered(last)
	return first != last && (a == nil || b == nil || !t.sameUser(a.Process, b.Process) && !t.related(first, last))
}

// later reports whether something began only after the asked connection was closed.
func (t *tracer) later(began time.Time) bool {
	over := t.over()
	return t.q.Socket.Recalled && !over.IsZero() && began.After(over)
}

// over is until when the asked connection was open for sure; zero while it is open.
func (t *tracer) over() time.Time {
	s := t.q.Socket
	if !s.Until.IsZero() {
		return s.Until
	}
	return s.Closed
}

// cameLater reports whether a TCP connection that a process has was established only after the asked one was closed, or may have been.
func (t *tracer) cameLater(n *node, d host.Descriptor) bool {
	if !t.q.Socket.Recalled || d.Kind != host.TCP || t.asked(d) {
		return false
	}
	if !d.Opened.IsZero() {
		return t.later(d.Opened)
	}
	if d.Since.IsZero() || t.later(d.Since) {
		t.note(n, "connections", fmt.Sprintf("not considered: that with %s may have been opened only after the asked one was closed", d.Remote))
		return true
	}
	return false
}

// endLater reports whether it is so of an end of a channel.
func (t *tracer) endLater(e End) bool {
	n := t.at(e)
	return n != nil && t.cameLater(n, n.end(e.object))
}

// isOf reports whether a descriptor that a process has is of a connection that is remembered.
func isOf(s host.Socket, d host.Descriptor) bool {
	return s.Local == d.Local && s.Remote == d.Remote && (s.NetNS == d.NetNS || s.NetNS == 0 || d.NetNS == 0)
}
