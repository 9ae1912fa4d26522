package trace

import (
	"errors"
	"fmt"

	"github.com/stopd/stopd/host"
)

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

// parent returns the parent of a process, and whether it was added to the closure, as it is where it is not in it. Nil where it is not to be found.
func (t *tracer) parent(n *node, id host.ID, by string) (p *node, added bool) {
	p = t.node(id)
	added = p == nil
	if added {
		if p = t.enterParent(n, id, by); p == nil {
			return nil, false
		}
	}
	if n.StartTicks != 0 && p.StartTicks > n.StartTicks {
		// The parent has ended and its pid is somebody else's: not an ancestor.
		if added {
			t.drop(p)
		}
		t.gap(n.PID, "parent", fmt.Sprintf("process %d is younger than its child: the pid was used again", p.PID))
		return nil, false
	}
	if added {
		p.acceptor = t.accepted(p)
	}
	return p, added
}

// enterParent adds the parent of a process to the closure; nil where it cannot.
func (t *tracer) enterParent(n *node, id host.ID, by string) *node {
	via := Via{From: new(n.Index), By: by}
	if p := t.addEnded(id, via); p != nil || t.bound() {
		return p
	}
	if id.Start != 0 {
		p, err := t.snap.Process(t.ctx, id.PID)
		if errors.Is(err, host.ErrNotFound) || err == nil && p.StartTicks != 0 && p.StartTicks != id.Start {
			t.gap(n.PID, "parent", fmt.Sprintf("process %d, which made it, has ended and is not remembered", id.PID))
			return nil
		}
	}
	return t.add(id.PID, via)
}

// maker returns who made a process, which another may have adopted since; it is added to the closure where it is not in it. Nil
// where it is not known.
func (t *tracer) maker(n *node) *node {
	made := t.remembered(n.ID())
	if made == nil || made.Parent.PID == 0 || n.parent != nil && n.parent.ID() == made.Parent {
		return n.parent
	}
	if n.Exited == nil && n.PPID != nil && *n.PPID != made.Parent.PID && !t.ofOwner(n) && !t.inSessionOf(n, made.Parent) {
		t.note(n, "parent", fmt.Sprintf("process %d, which made it, is not considered: it is another user's, another has adopted it, and whoever began a service does not direct it", made.Parent.PID))
		return nil
	}
	m, _ := t.parent(n, made.Parent, ByRecordedParent)
	return m
}

// inSessionOf reports whether a process is in the session of another still: sudo stays in that of who called it, a service leaves it.
func (t *tracer) inSessionOf(n *node, id host.ID) bool {
	r := t.remembered(id)
	return r != nil && same(n.Session, r.Process.Session)
}

// related reports whether of two processes one made the other, or made who did, as far as that is remembered.
func (t *tracer) related(a, b host.ID) bool { return t.descends(a, b) || t.descends(b, a) }

// descends reports whether a process is another, or that one made it, or made who did, as far as that is remembered.
func (t *tracer) descends(id, from host.ID) bool {
	for range maxAncestry {
		if id == from {
			return true
		}
		r := t.remembered(id)
		if r == nil || r.Parent.PID <= 1 {
			return false
		}
		id = r.Parent
	}
	return false
}
