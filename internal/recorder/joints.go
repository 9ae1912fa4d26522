package recorder

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// joints is the table of what processes had by which they can be joined to others. Most have what another has as well: so what
// a process has is a set, which is kept once. A set is shared only while somebody who has it lives: what has ended may be another object
// by the same number afterwards. Sets that ended give way in the order in which they ended, whether or not those who had them do.
type joints struct {
	of       []uint32 // the set of each process
	holders  chain    // processes by set
	sets     []set
	setSlots slots
	contents chain // sets of the living
	all      []joint
	slots    slots
	ends     chain   // its nodes are of jointOf: joints by their object, and by their peer
	now      []Joint // room to make a set in
	visits   int     // that may still be made
}

type set struct {
	ended  uint64 // when the last process that had it did
	first  uint32 // joint
	living uint32 // processes
	hash   uint32 // of its contents
}

type joint struct {
	number, peer uint64
	device       uint32
	set, next    uint32
	class        Class
	peerClass    Class
	mode         Mode
}

// maxJoints is how many joints of a process are kept.
const maxJoints = 32

func jointOf(node uint32) uint32 { return (node-1)/2 + 1 }

// setsFor and jointsFor are how many are kept of so many processes. The least is what those of a host have that are alive.
func setsFor(n int) int   { return n/16 + 1024 }
func jointsFor(n int) int { return n/8 + 4096 }

func (j *joints) make(n int) {
	s, a := setsFor(n), jointsFor(n)
	*j = joints{of: make([]uint32, n+1), holders: newChain(s+1, n), sets: make([]set, s+1), setSlots: newSlots(s), contents: newChain(s, s),
		all: make([]joint, a+1), slots: newSlots(a), ends: newChain(a, 2*a), now: make([]Joint, 0, 2*maxJoints)}
}

// jointsBytes is what make takes, but for what does not depend on n.
func jointsBytes(n int) int {
	s, a := setsFor(n), jointsFor(n)
	return 4*(n+1) + chainBytes(s+1, n) + taken[set](s+1) + 4*(s+1) + chainBytes(s, s) + taken[joint](a+1) + 4*(a+1) + chainBytes(a, 2*a)
}

// joint returns one as it was told.
func (s *joint) joint() Joint {
	j := Joint{Object: Object{s.class, s.device, s.number}, Mode: s.mode}
	if s.peerClass != 0 {
		j.Peer = Object{s.peerClass, s.device, s.peer}
	}
	return j
}

func compareJoints(a, b Joint) int {
	return cmp.Or(cmp.Compare(a.Object.Class, b.Object.Class), cmp.Compare(a.Object.Device, b.Object.Device), cmp.Compare(a.Object.Number, b.Object.Number),
		cmp.Compare(a.Peer.Number, b.Peer.Number), cmp.Compare(a.Mode, b.Mode))
}

// held enters what a process has.
func (h *History) held(at uint64, e *Event) {
	p := h.find(e.Process.ID)
	if p == 0 || h.processes.all[p].exited != 0 {
		return
	}
	t := &h.joints
	now := t.now[:0]
	for n := t.sets[t.of[p]].first; n != 0; n = t.all[n].next {
		now = append(now, t.all[n].joint())
	}
	had := len(now)
	t.visits = visitsEvent
	// What it had only to hand it on, and has no more, is of no use; of a master, that there was one is.
	now = slices.DeleteFunc(now, func(j Joint) bool {
		return j.Mode&Passing != 0 && j.Object.Class != Master && !slices.ContainsFunc(e.Joints, func(o Joint) bool { return o.Object == j.Object && o.Mode.like(j.Mode) }) && h.unused(p, j) && t.visits >= 0
	})
	if len(now) < had {
		had = -1
	}
	more := e.More
	for _, j := range e.Joints {
		i := slices.IndexFunc(now, func(o Joint) bool { return o.Object == j.Object && o.Mode.like(j.Mode) })
		switch {
		case i < 0 && len(now) == maxJoints:
			more = true
		case i < 0:
			now, had = append(now, j), -1
		case now[i].Mode&^j.Mode != 0 || now[i].Peer == (Object{}) && j.Peer != now[i].Peer:
			now[i].Mode &= j.Mode
			now[i].Peer = cmp.Or(now[i].Peer, j.Peer)
			had = -1
		}
	}
	if more {
		h.processes.all[p].flags |= partial
	}
	if len(now) == had {
		return // nothing new
	}
	slices.SortFunc(now, compareJoints)
	h.leave(p, at)
	h.join(p, at, now)
}

// join gives a process a set.
func (h *History) join(p uint32, at uint64, now []Joint) {
	t := &h.joints
	sum := uint32(0)
	for _, j := range now {
		sum = sum*31 + uint32(maphash.Comparable(h.seed, j))
	}
	n := t.contents.first(uint64(sum))
	for n != 0 && !t.has(n, now) {
		n = t.contents.next[n]
	}
	if n == 0 {
		if n = h.makeSet(now); n == 0 {
			h.losses.add(Loss{Full, at, at})
			h.processes.all[p].flags |= unjoined
			return
		}
		t.sets[n].hash = sum
		t.contents.insert(uint64(sum), n)
	}
	t.of[p] = n
	t.sets[n].living++
	t.holders.insert(uint64(n), p)
}

// has reports whether a set is of these joints.
func (t *joints) has(n uint32, now []Joint) bool {
	at := t.sets[n].first
	for _, j := range now {
		if at == 0 || t.all[at].joint() != j {
			return false
		}
		at = t.all[at].next
	}
	return at == 0
}

// makeSet returns a new set; 0 where all places are of what the living have.
func (h *History) makeSet(now []Joint) uint32 {
	t := &h.joints
	n := t.setSlots.take()
	for n == 0 {
		if !h.dropSet() {
			return 0
		}
		n = t.setSlots.take()
	}
	t.sets[n] = set{}
	for _, j := range slices.Backward(now) {
		a := t.slots.take()
		for a == 0 {
			if !h.dropSet() {
				h.freeSet(n)
				return 0
			}
			a = t.slots.take()
		}
		s := &t.all[a]
		*s = joint{number: j.Object.Number, device: j.Object.Device, class: j.Object.Class, peer: j.Peer.Number, peerClass: j.Peer.Class, mode: j.Mode,
			set: n, next: t.sets[n].first}
		t.sets[n].first = a
		t.ends.insert(h.objectHash(j.Object), 2*a-1)
		if j.Peer != j.Object && j.Peer != (Object{}) {
			t.ends.insert(h.objectHash(j.Peer), 2*a)
		}
	}
	return n
}

// freeSet takes a set's joints and place; nobody has it.
func (h *History) freeSet(n uint32) {
	t := &h.joints
	for a := t.sets[n].first; a != 0; {
		j, next := t.all[a].joint(), t.all[a].next
		t.ends.remove(h.objectHash(j.Object), 2*a-1)
		if j.Peer != j.Object && j.Peer != (Object{}) {
			t.ends.remove(h.objectHash(j.Peer), 2*a)
		}
		t.all[a] = joint{}
		t.slots.give(a)
		a = next
	}
	t.sets[n] = set{}
	t.setSlots.give(n)
}

// dropSet forgets the set that ended first; false where none has.
func (h *History) dropSet() bool {
	t := &h.joints
	if t.setSlots.first == 0 {
		return false
	}
	n := t.setSlots.shift()
	for p := t.holders.first(uint64(n)); p != 0; p = t.holders.first(uint64(n)) {
		t.holders.remove(uint64(n), p)
		t.of[p] = 0
		h.processes.all[p].flags |= unjoined
		h.losses.unjoined = max(h.losses.unjoined, t.sets[n].ended)
	}
	h.freeSet(n)
	return true
}

// leave takes a living process its set.
func (h *History) leave(p uint32, at uint64) {
	t := &h.joints
	n := t.of[p]
	if n == 0 {
		return
	}
	t.holders.remove(uint64(n), p)
	t.of[p] = 0
	h.unshare(n, at)
}

// unshare notes that one fewer of those who have a set is alive.
func (h *History) unshare(n uint32, at uint64) {
	t := &h.joints
	s := &t.sets[n]
	if s.living--; s.living > 0 {
		return
	}
	s.ended = at
	t.contents.remove(uint64(s.hash), n)
	if t.holders.first(uint64(n)) == 0 {
		h.freeSet(n)
		return
	}
	t.setSlots.end(n)
}

// forgetJoints notes that a process that has ended is forgotten.
func (h *History) forgetJoints(p uint32) {
	t := &h.joints
	if n := t.of[p]; n != 0 {
		t.holders.remove(uint64(n), p)
		t.of[p] = 0
	}
}

// dropEmpty forgets sets of which nobody who had them is remembered, those that ended first.
func (h *History) dropEmpty() {
	t := &h.joints
	for t.setSlots.first != 0 && t.holders.first(uint64(t.setSlots.first)) == 0 {
		h.dropSet()
	}
}

func (h *History) objectHash(o Object) uint64 { return maphash.Comparable(h.seed, o) }
