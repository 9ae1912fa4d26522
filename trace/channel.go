package trace

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
)

// follow lists the channels of one descriptor, and walks on to who holds their other ends.
func (t *tracer) follow(n *node, d host.Descriptor) {
	if d.Object == "" || d.Kind.Keeps() { // those come later: see kept
		return
	}
	peers, err := t.snap.Peers(t.ctx, d.Object)
	if err != nil {
		t.gap(n.PID, "other end of "+describe(d), err.Error())
		return
	}
	for _, o := range peers {
		if o == d.Object && hearsItself(d) {
			continue // that comes later as well
		}
		if t.bound() {
			return
		}
		t.join(n, d, o)
	}
}

// describe names a descriptor in a gap. Not all have a number: the system may know what a process holds
// and not where.
func describe(d host.Descriptor) string {
	if len(d.FDs) == 0 {
		return string(d.Kind) + " " + string(d.Object)
	}
	return "descriptor " + strconv.Itoa(d.FDs[0])
}

// join follows the channel between a descriptor and one peer object.
func (t *tracer) join(n *node, d host.Descriptor, peer host.Object) {
	far, err := t.snap.Holders(t.ctx, peer)
	if err != nil {
		t.gap(n.PID, "holders of the other end of "+describe(d), err.Error())
		return
	}
	c := t.channel(n, d, peer, far)
	if c == nil {
		return
	}
	if d.Kind == host.PTY && d.Side == host.Master && n.entered[peer] {
		return
	}
	if !c.decided { // once: seen from its other end it may look otherwise
		c.Why = t.stop(n, d, peer, far)
		c.decided, c.Followed = true, c.Why == ""
	}
	if !c.Followed {
		return
	}
	for _, h := range far {
		if h.PID == n.PID || h.PID <= 1 || slices.Contains(t.q.Daemon, h.PID) || (c.keeps || d.Kind == host.PTrace) && !t.ours(n, h.PID) {
			continue
		}
		var chain []*node // those that are new
		if t.byPID[h.PID] == nil {
			chain = t.walk(h, Via{From: new(n.Index), By: ByChannel, Channel: new(c.ID)}, peer)
		}
		if found := t.byPID[h.PID]; found != nil && d.Kind == host.PTY && d.Side == host.Slave {
			found.entered[d.Object] = true
		}
		t.expand(chain)
	}
}

// channel returns the channel between a descriptor and a peer, listed once whichever end it was met from;
// nil where it joins nobody: an end that only this process holds, with both sides or with none.
func (t *tracer) channel(n *node, d host.Descriptor, peer host.Object, far []host.Holder) *Channel {
	a, b := d.Object, peer
	if b < a {
		a, b = b, a
	}
	key := string(a) + "\x00" + string(b)
	if c := t.byKey[key]; c != nil {
		return c
	}
	near := far
	if peer != d.Object {
		var err error
		if near, err = t.snap.Holders(t.ctx, d.Object); err != nil {
			t.gap(n.PID, "holders of "+describe(d), err.Error())
		}
	}
	c := &Channel{ID: len(t.channels) + 1, Kind: d.Kind, keeps: d.Kind.Keeps() || hearsItself(d) && peer == d.Object}
	add := func(o host.Object, holders []host.Holder) {
		for _, h := range holders {
			c.Ends = append(c.Ends, End{PID: h.PID, FDs: h.FDs, Mode: h.Mode, object: o})
		}
	}
	add(d.Object, near)
	if peer != d.Object {
		add(peer, far)
	}
	c.Complete = complete(c.Ends, d.Object, peer)
	alone := !slices.ContainsFunc(c.Ends, func(e End) bool { return e.PID != n.PID })
	if alone && c.Complete {
		return nil // it talks to itself
	}
	if c.keeps && !passes(c.Ends) {
		return nil // all read, or all append to one log
	}
	t.byKey[key] = c
	t.channels = append(t.channels, c)
	return c
}

// passes reports whether one process may read what another writes.
func passes(ends []End) bool {
	for _, w := range ends {
		for _, r := range ends {
			if w.PID != r.PID && w.Mode.Writes() && r.Mode.Reads() {
				return true
			}
		}
	}
	return false
}

// complete reports whether both ends were found: two sides, or where both are one object a reader and a
// writer.
func complete(ends []End, near, far host.Object) bool {
	var a, b bool
	for _, e := range ends {
		if near == far {
			a, b = a || e.Mode.Reads(), b || e.Mode.Writes()
		} else {
			a, b = a || e.object == near, b || e.object == far
		}
	}
	return a && b
}

// stop says why a channel met from a process is only listed; empty where it is followed.
func (t *tracer) stop(n *node, d host.Descriptor, peer host.Object, far []host.Holder) string {
	var others, inits, acceptors, selves int
	for _, h := range far {
		seen := t.byPID[h.PID]
		switch {
		case h.PID == n.PID:
			continue
		case slices.Contains(t.q.Daemon, h.PID):
			selves++
		case h.PID <= 1 && (seen == nil || seen.isInit()):
			inits++
		case seen != nil && seen.acceptor:
			acceptors++
		}
		others++
	}
	switch {
	case d.Kind == host.TTY:
		return "terminal: it passes nothing from one of its holders to another"
	case d.Kind == host.PTrace && !t.oneOfOurs(n, far):
		return otherUsers
	case d.Kind == host.PTY && d.Side == host.Slave && d.Mode == host.Write && !n.onTerminal(d) && !t.oneOfOurs(n, far):
		return "another user's terminal: it only shows them something"
	case n.acceptor || acceptors > 0 && others == acceptors+inits:
		return "listener: it accepted the connection of its child"
	case others > 0 && others == selves:
		return "the daemon itself"
	case others > 0 && others == inits:
		return "init"
	}
	if t.hub(n, d, peer, far) {
		return fmt.Sprintf("hub: more than %d processes of others", t.opt.Hub)
	}
	if d.Kind.Keeps() || hearsItself(d) && peer == d.Object {
		return t.leave(n, far)
	}
	return ""
}

// onTerminal reports whether a slave side is of the process's own terminal.
func (n *node) onTerminal(d host.Descriptor) bool {
	return d.Number != nil && n.TTY == "pts/"+strconv.Itoa(*d.Number) || n.TTY != "" && d.Path == "/dev/"+n.TTY
}
