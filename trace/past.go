package trace

import (
	"errors"
	"fmt"
	"maps"
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
	asked := t.q.Socket
	t.joined(asked.Opened, t.over())
	var commanded []*node
	for _, n := range t.nodes {
		if t.commanded[n] && !n.isInit() {
			commanded = append(commanded, n)
		}
	}
	if at := asked.Opened; !at.IsZero() {
		for _, n := range commanded {
			if connected && !n.joined || t.unclear(n) || t.blind {
				continue
			}
			// A listener may have been there before its client was.
			if !t.held(n, at, at, "as the connection was established", false) && n.joined && !n.led {
				t.held(n, at, t.over(), "while the connection was open", false)
			}
			if t.told[n] && n.joined && !n.led {
				t.held(n, at, t.over(), "while the connection was open", true)
			}
		}
	}
	// Who began something need not be who directs it, so who has left it to another is asked about last.
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
	if t.explained() {
		return
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
		o := outside(d)
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
	if r := t.remembered(n.ID()); r != nil && len(held) > 0 {
		for _, g := range r.Gaps {
			t.note(n, g.What, g.Why) // that it held no other is as sure as this
		}
	}
	return len(held) > 0
}

// unclear reports whether commands came to a process, or to one that descends from it, by connections of which nothing tells which is meant, or did not by
// those that were known (see left). Who made it, or an ancestor, is not to be named in their place.
func (t *tracer) unclear(n *node) bool {
	of := func(u *node) bool { return u.descends(n) }
	return slices.ContainsFunc(t.several, of) || slices.ContainsFunc(t.absent, of)
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
// descriptor that he does not want, and root who ends a connection, are those who ended it.
func (t *tracer) apartFrom(first, last host.ID) bool {
	a, b := t.remembered(first), t.remembered(last)
	return a != nil && b != nil && !t.sameUser(a.Process, b.Process) && !t.related(first, last)
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

// cameLater reports whether a connection that a process has was established only after the asked one was closed.
func (t *tracer) cameLater(n *node, d host.Descriptor) bool {
	if !d.Opened.IsZero() {
		return t.later(d.Opened)
	}
	if !t.q.Socket.Recalled {
		return false
	}
	r := t.remembered(n.ID())
	return r != nil && slices.ContainsFunc(r.Held, func(s host.Socket) bool { return s.Closed.IsZero() && isOf(s, d) && t.later(s.Opened) })
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
