package trace

import (
	"fmt"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// What a process that has ended shared with others is remembered as far as docs/decisions/0070-recorder.md says. It leads on as
// what is open does, from processes that have ended, and from living ones that are found so to others that have ended. What living ones
// shared with each other is open, or over. It does not lead on from other users' processes than those who held the asked socket: what a
// service did for one of its clients and what for another was at some time of its life, and which, nothing tells any more.

// joined adds those with whom processes of the closure that have ended shared something, those with whom they or living ones had connections at some time
// between two (see locally), and the channels. Whose commands can have come to the asked socket is found anew then.
func (t *tracer) joined(at, until time.Time) {
	t.then = at
	before := t.ends()
	for i := 0; i < len(t.nodes); i++ { // it grows
		n := t.nodes[i]
		t.locally(n, at, until)
		if n.isInit() || n.acceptor || n.Exited == nil && !n.joined || !t.ofOwner(n) {
			continue
		}
		if r := t.remembered(n.ID()); r != nil {
			for _, j := range r.Joints {
				t.rejoin(n, j)
			}
		}
	}
	if t.ends() > before {
		t.direct()
	}
}

// ends returns how many ends the channels have.
func (t *tracer) ends() (n int) {
	for _, c := range t.channels {
		n += len(c.Ends)
	}
	return n
}

// direct finds anew whose commands can have come to the asked socket.
func (t *tracer) direct() {
	w := t.flow(false)
	for n := range w.commanded {
		t.commanded[n] = t.commanded[n] || w.served[n] == plain
	}
	t.told = map[*node]bool{}
	for _, n := range t.nodes {
		if w.served[n] == plain && t.ofOwner(n) {
			// A relay may be made of two halves that each lead one way.
			t.commanded[n] = t.commanded[n] || w.reached[n]
			t.told[n] = w.fed[n] || w.reached[n]
		}
	}
	t.led()
}

// rejoin follows the channel of something that a process had.
func (t *tracer) rejoin(n *node, j host.Joint) {
	var far []host.Holder
	for _, h := range j.With {
		if t.bound() {
			return
		}
		known := t.node(h.ID)
		if r := t.remembered(h.ID); r == nil || h.PID <= 1 || h.ID == n.ID() || slices.Contains(t.q.Daemon, h.PID) || j.Kind != host.TCP && n.Exited == nil && r.Process.Exited == nil ||
			known != nil && known.acceptor ||
			j.Kind == host.PTY && !t.sameUser(n.Process.Process, r.Process) && !t.related(n.ID(), h.ID) { // the number may have been another's
			continue
		}
		far = append(far, h)
	}
	if len(far) == 0 {
		return
	}
	c := t.pastChannel(n, j, far)
	why := t.stopPast(n, j, far)
	switch {
	case why == "": // it may be followed from one end alone
		c.decided, c.Followed, c.Why = true, true, ""
	case !c.decided:
		c.decided, c.Why = true, why
		return
	default:
		return
	}
	n.joined = true // it has ended, or was found so
	for _, h := range far {
		if t.node(h.ID) == nil && !t.bound() {
			t.expand(t.walk(h, Via{From: new(n.Index), By: ByChannel, Channel: new(c.ID)}, ""))
		}
		if m := t.node(h.ID); m != nil && !m.joined {
			m.joined = true
			for _, j := range t.remembered(h.ID).Joints {
				m.was = append(m.was, j.Descriptor)
			}
		}
	}
}

// pastChannel returns the channel of something that is remembered, listed once, with these ends among its own. Two that had one number at two times
// are one: who had them did not live at one time.
func (t *tracer) pastChannel(n *node, j host.Joint, far []host.Holder) *Channel {
	other := j.Peer
	if other == "" { // its other end was closed before it was looked at: theirs has it as its own
		other = "other end of " + j.Object
	}
	key := fmt.Sprintf("past\x00%s\x00%s", min(j.Object, other), max(j.Object, other))
	c := t.byKey[key]
	if c == nil {
		c = &Channel{ID: len(t.channels) + 1, Kind: j.Kind, Remembered: true}
		t.byKey[key] = c
		t.channels = append(t.channels, c)
	}
	c.hold(End{PID: n.PID, start: n.StartTicks, Mode: j.Mode, object: j.Object})
	for _, h := range far {
		c.hold(End{PID: h.PID, start: h.Start, Mode: h.Mode, object: other})
	}
	return c
}

// hold adds an end that is remembered, or its mode to one that is there.
func (c *Channel) hold(e End) {
	i := slices.IndexFunc(c.Ends, func(o End) bool { return o.is(e) && o.object == e.object })
	if i >= 0 {
		c.Ends[i].Mode = c.Ends[i].Mode.With(e.Mode)
		return
	}
	e.FDs = []int{}
	c.Ends = append(c.Ends, e)
}

// stopPast says why a channel that is remembered is only listed; empty where it is followed.
func (t *tracer) stopPast(n *node, j host.Joint, far []host.Holder) string {
	others := 0
	if j.Kind == host.TCP && j.Direction == host.Outbound && !slices.ContainsFunc(far, func(h host.Holder) bool {
		r := t.remembered(h.ID)
		return r != nil && t.sameUser(n.Process.Process, r.Process)
	}) {
		return "service: it is another user's, and what it did for whom is not remembered"
	}
	for _, h := range far {
		if r := t.remembered(h.ID); t.node(h.ID) == nil && (r == nil || !t.sameUser(n.Process.Process, r.Process)) {
			others++
		}
	}
	if others > t.opt.Hub {
		return fmt.Sprintf("hub: more than %d processes of others", t.opt.Hub)
	}
	return ""
}

// at returns the process of the closure that an end is of; nil where it is not in it.
func (t *tracer) at(e End) *node {
	if e.start != 0 {
		return t.node(host.ID{PID: e.PID, Start: e.start})
	}
	return t.byPID[e.PID]
}

// is reports whether two ends are of one process.
func (e End) is(o End) bool { return e.PID == o.PID && e.start == o.start }

// overlap reports whether two processes lived at one time.
func overlap(a, b *node) bool {
	return (a.Exited == nil || !a.Exited.Before(b.Start)) && (b.Exited == nil || !b.Exited.Before(a.Start))
}

// gone reports whether a process had ended by the time about which it is asked. When in its life it told others what, nothing tells: over the years of a
// service that is everybody who ever used it, whose logins may be open still.
func (t *tracer) gone(n *node) bool {
	return n.Exited != nil && !t.then.IsZero() && n.Exited.Before(t.then)
}

// mayBeLater reports whether two living processes of two users, neither of which descends from the other, may have been joined only after the asked connection
// was closed: of a UNIX socket or a FIFO it is not remembered since when.
func (t *tracer) mayBeLater(c *Channel, a, b *node) bool {
	if !t.q.Socket.Recalled || c.Remembered || c.Kind != host.Unix && c.Kind != host.FIFO || t.sameUser(a.Process.Process, b.Process.Process) || a.descends(b) || b.descends(a) {
		return false
	}
	for _, n := range []*node{a, b} {
		t.note(n, "what it shares with others", "not considered: it may do so only since the connection was closed, with another user's process")
	}
	return true
}

// ofOwner reports whether a process is of a user who held the asked socket.
func (t *tracer) ofOwner(n *node) bool {
	return slices.ContainsFunc(t.nodes, func(o *node) bool { return o.owner && t.sameUser(o.Process.Process, n.Process.Process) })
}
