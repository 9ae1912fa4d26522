package recorder

// A Joined is what a process had, and who had the other end while it lived.
type Joined struct {
	Joint
	With []With
	// More says that there may be others; Unsure that it cannot be told whether they had the same one: a terminal of that number was several.
	More, Unsure bool
}

// A With is a process at the other end of a joint.
type With struct {
	ID
	Mode Mode
}

// Bounds on how many entries are looked at, for one answer and for one event: any user can have many processes share something.
const (
	visitsAnswer = 1 << 15
	visitsEvent  = 1 << 10
	visitsUnheld = 1 << 18 // one after the other as they lie, which takes less
)

// Joined returns what a process had by which it can be joined to others, and who had the other ends while it lived, at most so
// many of each; more says that it may have had more, or that it was forgotten.
//
// What a process had only in passing, and what one that it made had otherwise, it had for that one: so a shell has the pipes of
// the programs that it starts, for a moment. And who never became another program, and has both ends of something, has it from its parent.
func (h *History) Joined(id ID, most int) (all []Joined, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.find(id)
	if p == 0 {
		return nil, false
	}
	t := &h.joints
	t.visits = visitsAnswer
	for n := t.sets[t.of[p]].first; n != 0; n = t.all[n].next {
		j := Joined{Joint: t.all[n].joint()}
		if !h.unused(p, j.Joint) {
			h.with(p, &j, most)
			all = append(all, j)
		}
	}
	return all, h.processes.all[p].flags&(partial|unjoined) != 0 || t.visits < 0
}

// each calls f with processes and what they have of an object, until it returns false; it returns false where the bound is reached before. Where peer is set, it is with what they have whose other end it is.
func (h *History) each(o Object, peer bool, f func(p uint32, j Joint) bool) bool {
	t := &h.joints
	for n := t.ends.first(h.objectHash(o)); n != 0; n = t.ends.next[n] {
		if t.visits--; t.visits < 0 {
			return false
		}
		j := t.all[jointOf(n)].joint()
		if (n%2 == 0) != peer || (peer && j.Peer != o) || (!peer && j.Object != o) {
			continue
		}
		for p := t.holders.first(uint64(t.all[jointOf(n)].set)); p != 0; p = t.holders.next[p] {
			if t.visits--; t.visits < 0 {
				return false
			}
			if !f(p, j) {
				return true
			}
		}
	}
	return true
}

// overlap reports whether two processes lived at one time.
func overlap(a, b *process) bool {
	return (a.exited == 0 || b.start <= a.exited) && (b.exited == 0 || a.start <= b.exited)
}

// kin reports whether one process made the other.
func kin(a, b *process) bool {
	return b.id() == ID{a.parent, a.parentStart} || a.id() == ID{b.parent, b.parentStart}
}

// unused reports, as far as the bound lets it see, whether a process only had something to give it to one that it made, or has both ends of it from its parent.
func (h *History) unused(p uint32, j Joint) bool {
	if j.Mode&Inherited != 0 {
		return h.hasBoth(p, j)
	}
	if j.Mode&Passing == 0 {
		return false
	}
	of, found := h.processes.all[p].id(), false
	whole := h.each(j.Object, false, func(q uint32, k Joint) bool {
		s := &h.processes.all[q]
		found = k.Mode&(Passing|Inherited) == 0 && k.Mode.like(j.Mode) && of == ID{s.parent, s.parentStart}
		return !found
	})
	return found || !whole
}

// hasBoth reports whether a process has the other end of something as well.
func (h *History) hasBoth(p uint32, j Joint) bool {
	t := &h.joints
	for n := t.sets[t.of[p]].first; n != 0; n = t.all[n].next {
		if k := t.all[n].joint(); k.Object == j.Peer && (j.Peer != j.Object || k.Mode.way() != j.Mode.way()) {
			return true
		}
	}
	return false
}

// with fills in who had the other end of a joint.
func (h *History) with(p uint32, j *Joined, most int) {
	all := h.processes.all
	add := func(q uint32, k Joint) bool {
		switch {
		case q == p || !overlap(&all[p], &all[q]) || h.unused(q, k):
			return true
		case j.Object.Class == Master && h.several(q, p, j.Object):
			j.Unsure = true
			return true
		}
		id := all[q].id()
		for i := range j.With {
			if w := &j.With[i]; w.ID == id {
				w.Mode |= k.Mode.way()
				return true
			}
		}
		if len(j.With) == most {
			j.More = true
			return false
		}
		j.With = append(j.With, With{id, k.Mode.way()})
		return true
	}
	whole := true
	if j.Peer != (Object{}) {
		whole = h.each(j.Peer, false, add)
	}
	if j.Object.Class == Unix {
		whole = h.each(j.Object, true, add) && whole
	}
	j.More = j.More || !whole
	if j.Object.Class != Slave {
		return
	}
	for _, w := range j.With {
		if h.several(p, h.find(w.ID), j.Peer) {
			j.With, j.Unsure = nil, true
			return
		}
	}
}

// several reports whether a process that had a terminal may have had another one of that number than a process that had its
// master: while it lived, one that is no kin of that one had such a master as well.
func (h *History) several(slave, master uint32, o Object) (found bool) {
	all := h.processes.all
	whole := h.each(o, false, func(q uint32, k Joint) bool {
		found = q != master && overlap(&all[q], &all[slave]) && !kin(&all[q], &all[master])
		return !found
	})
	return found || !whole
}
