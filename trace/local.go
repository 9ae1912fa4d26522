package trace

import (
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// A connection of this host with itself that is closed joins who held its ends, at the time at which it was open, whether they live or not: while it
// is open, it is followed as all channels are. What came by it is followed where nothing else can be meant: other hosts that a process
// had then go before it, and of local clients that have nothing to do with each other none is chosen. See held, which says so.

// A client is the other end of a connection with this host itself that a process accepted.
type client struct {
	n   *node
	own host.Object // the process's end
	far []host.Holder
}

// locally joins a process to those with whom it had connections that were open as the asked one was established, else while it was open; once.
func (t *tracer) locally(n *node, at, until time.Time) {
	if n.asked || at.IsZero() || !t.commanded[n] && !n.joined {
		return
	}
	n.asked = true
	if !t.local(n, at, at) {
		t.local(n, at, until)
	}
}

// local joins a process to those with whom it had connections between two times, of which the second may be zero for now. It returns whether there were
// any, or others that came to it.
func (t *tracer) local(n *node, from, to time.Time) bool {
	if n.isInit() || n.acceptor || !t.ofOwner(n) {
		return false
	}
	came, more := t.heldThen(n, from, to, false)
	opened, _ := t.heldThen(n, from, to, true)
	if !more {
		for _, l := range t.clientsThen(n, came, from, to) {
			t.clients = append(t.clients, l)
			i := slices.IndexFunc(came, func(s host.Socket) bool { return s.Object == l.own })
			t.rejoinLocal(n, came[i], l.far)
		}
	}
	joined := false
	for _, s := range opened {
		if _, sure := s.Within(from, to); !sure || s.Peer == "" || !t.own(s.Remote.Addr()) {
			continue
		}
		if far, err := t.snap.Holders(t.ctx, s.Peer); err == nil {
			joined = true
			t.rejoinLocal(n, s, far)
		}
	}
	return joined || len(came) > 0
}

// clientsThen are the connections with this host itself among those that came to a process between two times; none where they need not all have been for
// one purpose, or not all are known.
func (t *tracer) clientsThen(n *node, came []host.Socket, from, to time.Time) (all []client) {
	var party []host.ID
	for _, s := range came {
		if _, sure := s.Within(from, to); !sure || s.Peer == "" || !t.own(s.Remote.Addr()) {
			return nil
		}
		far, err := t.snap.Holders(t.ctx, s.Peer)
		if err != nil || len(far) == 0 {
			return nil
		}
		for _, h := range far {
			if len(party) > 0 && !t.together(party[0], h.ID) {
				return nil
			}
			party = append(party, h.ID)
		}
		all = append(all, client{n, s.Object, far})
	}
	return all
}

// visits are the connections with this host itself that came to who has the asked one, were open in its span and are closed, with who had the other ends; each once. Of
// too many none is followed, as of a hub.
func (t *tracer) visits(w ways) (all []visit) {
	for _, n := range t.nodes {
		s := w.spans()[n]
		if !n.owner || n.acceptor || s.from.IsZero() {
			continue
		}
		came, _ := t.heldThen(n, s.from, s.to, false)
		var closed []visit
		for _, c := range came {
			_, tried := t.visited[c.Object]
			if _, sure := c.Within(s.from, s.to); tried || !sure || c.Peer == "" || !t.own(c.Remote.Addr()) || n.open(c) {
				continue
			}
			if far, err := t.snap.Holders(t.ctx, c.Peer); err == nil && len(far) > 0 {
				closed = append(closed, visit{n, c, far})
			}
		}
		if len(closed) <= t.opt.Hub {
			all = append(all, closed...)
		}
	}
	return all
}

// A visit is one of these.
type visit struct {
	n   *node
	own host.Socket // the process's end
	far []host.Holder
}

// visitedBy joins who has the asked connection to its clients of this host that have left: they count beside who is there still. What else these shared with others is not
// looked at for that.
func (t *tracer) visitedBy(visits []visit) {
	joined := map[*node]bool{}
	for _, n := range t.nodes {
		joined[n] = n.joined
	}
	for _, v := range visits {
		before := t.ends()
		t.rejoinLocal(v.n, v.own, v.far)
		t.visited[v.own.Object] = t.ends() > before
	}
	for _, n := range t.nodes {
		n.joined = joined[n]
	}
}

// together reports whether two processes are of one user and session, or descend from each other: what they did at one time they did for one.
func (t *tracer) together(a, b host.ID) bool {
	p, q := t.remembered(a), t.remembered(b)
	return a == b || p != nil && q != nil && (t.related(a, b) ||
		t.sameUser(p.Process, q.Process) && same(p.Process.Session, q.Process.Session))
}

// rejoinLocal follows the channel that a connection of this host with itself was.
func (t *tracer) rejoinLocal(n *node, s host.Socket, far []host.Holder) {
	d := host.Descriptor{FDs: []int{}, Kind: host.TCP, Mode: host.ReadWrite, Object: s.Object, Peer: s.Peer, Local: s.Local, Remote: s.Remote, State: s.State,
		Direction: s.Direction, DirectionSource: s.DirectionSource, NetNS: s.NetNS, Bytes: s.Bytes, Opened: s.Opened}
	if slices.ContainsFunc(n.Descriptors, func(o host.Descriptor) bool { return isOf(s, o) && o.Peer != "" }) {
		return // it is open
	}
	n.has(d)
	t.rejoin(n, host.Joint{Descriptor: d, With: far})
	d.Object, d.Peer, d.Local, d.Remote = d.Peer, d.Object, d.Remote, d.Local
	d.Bytes = host.Bytes{}
	switch s.Direction {
	case host.Outbound:
		d.Direction = host.Inbound
	case host.Inbound:
		d.Direction = host.Outbound
	}
	for _, h := range far {
		if m := t.node(h.ID); m != nil {
			m.has(d)
		}
	}
}

// has notes what a process had, once; of one that has ended it is reported.
func (n *node) has(d host.Descriptor) {
	switch {
	case n.end(d.Object).Kind != "":
	case n.Exited != nil:
		n.Descriptors = append(n.Descriptors, d)
	default:
		n.was = append(n.was, d)
	}
}

// led notes by which connections with this host itself commands came to who accepted them.
func (t *tracer) led() {
	for _, l := range t.clients {
		if slices.ContainsFunc(l.far, func(h host.Holder) bool { m := t.node(h.ID); return m != nil && t.commanded[m] }) {
			t.ledBy[l.own], l.n.led = true, true
		}
	}
}
