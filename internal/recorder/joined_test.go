package recorder

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// A holder is a process of a model that remembers everything.
type holder struct {
	id, parent ID
	exited     uint64
	had, ever  []Joint
}

type holders []*holder

func (m holders) of(id ID) *holder {
	i := slices.IndexFunc(m, func(p *holder) bool { return p.id == id })
	if i < 0 {
		return nil
	}
	return m[i]
}

func (p *holder) meets(q *holder) bool {
	return (p.exited == 0 || q.id.Start <= p.exited) && (q.exited == 0 || p.id.Start <= q.exited)
}

func (p *holder) kin(q *holder) bool { return p.parent == q.id || q.parent == p.id }

func (m holders) held(p *holder, joints []Joint) {
	p.had = slices.DeleteFunc(p.had, func(j Joint) bool {
		return j.Mode&Passing != 0 && j.Object.Class != Master && m.unused(p, j) &&
			!slices.ContainsFunc(joints, func(o Joint) bool { return o.Object == j.Object && o.Mode.like(j.Mode) })
	})
	p.ever = append(p.ever, joints...)
	for _, j := range joints {
		i := slices.IndexFunc(p.had, func(o Joint) bool {
			return o.Object == j.Object && o.Mode&^(Passing|Inherited) == j.Mode&^(Passing|Inherited)
		})
		if i < 0 {
			p.had = append(p.had, j)
			continue
		}
		p.had[i].Mode &= j.Mode
		if p.had[i].Peer == (Object{}) {
			p.had[i].Peer = j.Peer
		}
	}
}

// unused reports whether a process had something for one that it made, or both ends of it from its parent.
func (m holders) unused(p *holder, j Joint) bool {
	switch {
	case j.Mode&Inherited != 0:
		return slices.ContainsFunc(p.had, func(k Joint) bool {
			return k.Object == j.Peer && (k.Object != j.Object || k.Mode&(Reads|Writes) != j.Mode&(Reads|Writes))
		})
	case j.Mode&Passing == 0:
		return false
	}
	return slices.ContainsFunc(m, func(q *holder) bool {
		return q.parent == p.id && slices.ContainsFunc(q.had, func(k Joint) bool { return k.Object == j.Object && k.Mode == j.Mode&^Passing })
	})
}

// several reports whether another than a master's holder, and no kin of it, had a master of that number while a process lived.
func (m holders) several(slave, master *holder, o Object) bool {
	return slices.ContainsFunc(m, func(q *holder) bool {
		return q != master && q.meets(slave) && !q.kin(master) && slices.ContainsFunc(q.had, func(k Joint) bool { return k.Object == o })
	})
}

func (m holders) joined(p *holder) (all []Joined) {
	for _, j := range p.had {
		if m.unused(p, j) {
			continue
		}
		x := Joined{Joint: j}
		for _, q := range m {
			mode, is := Mode(0), false
			for _, k := range q.had {
				if (j.Peer != (Object{}) && k.Object == j.Peer || j.Object.Class == Unix && k.Peer == j.Object) && !m.unused(q, k) {
					is, mode = true, mode|k.Mode&(Reads|Writes)
				}
			}
			switch {
			case q == p || !is || !p.meets(q):
			case j.Object.Class == Master && m.several(q, p, j.Object):
				x.Unsure = true
			default:
				x.With = append(x.With, With{q.id, mode})
			}
		}
		if j.Object.Class == Slave && slices.ContainsFunc(x.With, func(w With) bool { return m.several(p, m.of(w.ID), j.Peer) }) {
			x.With, x.Unsure = nil, true
		}
		all = append(all, x)
	}
	return all
}

// sorted is a process's joints in an order that does not depend on who is asked.
func sorted(all []Joined) []Joined {
	for _, j := range all {
		slices.SortFunc(j.With, func(a, b With) int { return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.Start, b.Start)) })
	}
	slices.SortFunc(all, func(a, b Joined) int { return compareJoints(a.Joint, b.Joint) })
	return all
}

// some makes up what a process has, of few objects.
func some(r *rand.Rand) (joints []Joint) {
	for range r.IntN(4) {
		o := Object{Class: Class(1 + r.IntN(4)), Number: uint64(r.IntN(6))}
		j := Joint{Object: o, Peer: o, Mode: Mode(1 + r.IntN(3))}
		switch r.IntN(6) {
		case 0, 1:
			j.Mode |= Passing
		case 2:
			j.Mode |= Inherited
		}
		switch o.Class {
		case Unix:
			j.Peer = Object{}
			if r.IntN(4) > 0 {
				j.Peer = Object{Unix, 0, o.Number ^ 1}
			}
		case Master:
			j.Peer.Class = Slave
		case Slave:
			j.Peer.Class = Master
		}
		joints = append(joints, j)
	}
	return joints
}

// life has processes come, have something, and go.
func life(r *rand.Rand, h *History, events int) (m holders) {
	var alive holders
	for at := uint64(1); at <= uint64(events); at++ {
		var p *holder
		if len(alive) > 0 {
			p = alive[r.IntN(len(alive))]
		}
		switch n := r.IntN(10); {
		case p == nil || n < 3:
			q := &holder{id: ID{uint32(2 + at), at}}
			if p != nil {
				q.parent = p.id
			}
			m, alive = append(m, q), append(alive, q)
			h.Apply(Event{Kind: Forked, At: at, Process: Process{ID: q.id, Parent: q.parent}})
		case n < 5:
			p.exited = at
			alive = slices.DeleteFunc(alive, func(o *holder) bool { return o == p })
			h.Apply(Event{Kind: Exited, At: at, Process: Process{ID: p.id}})
		default:
			joints := some(r)
			m.held(p, joints)
			h.Apply(Event{Kind: Held, At: at, Process: Process{ID: p.id}, Joints: joints})
		}
	}
	return m
}

func TestJoined(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	with, unsure := 0, 0
	for range 300 {
		h := small(200)
		m := life(r, h, 120)
		for _, p := range m {
			got, more := h.Joined(p.id, 1000)
			want := sorted(m.joined(p))
			if d := gocmp.Diff(want, sorted(got), equal); d != "" || more {
				t.Fatalf("process %v had, more %v (-want +got):\n%s", p.id, more, d)
			}
			for _, j := range want {
				with += len(j.With)
				if j.Unsure {
					unsure++
				}
			}
		}
		if ls := h.Losses(0, 1000); len(ls) != 0 {
			t.Fatalf("lost: %+v", ls)
		}
		wholeJoints(t, h)
	}
	if with == 0 || unsure == 0 {
		t.Errorf("%d had the other end, of %d it could not be told", with, unsure)
	}
}

// TestJoinedWithoutRoom: what is missing is within a loss, and what is there is right.
func TestJoinedWithoutRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	missing := 0
	for i := range 300 {
		h := small(200)
		// Of few sets, and few joints.
		h.joints.setSlots, h.joints.slots = newSlots(1+i%7), newSlots(1+i%11)
		m := life(r, h, 120)
		wholeJoints(t, h)
		for _, p := range m {
			got, more := h.Joined(p.id, 1000)
			lost := len(h.Losses(p.id.Start, 1000)) > 0
			want := sorted(m.joined(p))
			for _, j := range want {
				g := slices.IndexFunc(got, func(o Joined) bool { return o.Object == j.Object && o.Mode.like(j.Mode) })
				if g < 0 {
					missing++
					if !more && !lost {
						t.Fatalf("process %v had %+v, which is missing, and nothing is lost", p.id, j)
					}
				}
			}
			for _, g := range got {
				if !slices.ContainsFunc(p.ever, func(j Joint) bool { return j.Object == g.Object && j.Mode.like(g.Mode) }) {
					t.Fatalf("process %v never had %+v", p.id, g)
				}
				for _, w := range g.With {
					if q := m.of(w.ID); q == nil || !q.meets(p) {
						t.Fatalf("process %v had %+v, with one who never met it", p.id, g)
					}
				}
			}
		}
	}
	if missing == 0 {
		t.Error("nothing was forgotten")
	}
}

// wholeJoints checks what the table keeps of itself: nothing is leaked, and who has a set is counted.
func wholeJoints(t *testing.T, h *History) {
	t.Helper()
	j := &h.joints
	living, used := make([]uint32, len(j.sets)), 0
	for p, n := range j.of {
		if n != 0 && h.processes.all[p].exited == 0 {
			living[n]++
		}
	}
	for n, s := range j.sets {
		if s.living != living[n] {
			t.Fatalf("%d of those who have set %d are alive, not %d", living[n], n, s.living)
		}
		for a := s.first; a != 0; a = j.all[a].next {
			if used++; j.all[a].set != uint32(n) {
				t.Fatalf("a joint of set %d is of set %d", n, j.all[a].set)
			}
		}
	}
	free := int(j.slots.used) - used
	for a := j.slots.free; a != 0; a = j.slots.next[a] {
		free--
	}
	if free != 0 {
		t.Fatalf("%d joints are lost", free)
	}
}

// TestTooMany: what a process has beyond the bound is not kept, and said.
func TestTooMany(t *testing.T) {
	h := small(200)
	h.Apply(fork(2, 1, 2))
	for i := range uint64(maxJoints + 1) {
		_, more := h.Joined(ID{2, 2}, 10)
		if more {
			t.Fatalf("with %d there are more", i)
		}
		o := Object{Pipe, 1, i}
		h.Apply(Event{Kind: Held, At: 3 + i, Process: Process{ID: ID{2, 2}}, Joints: []Joint{{o, o, Reads}}})
	}
	if all, more := h.Joined(ID{2, 2}, 10); len(all) != maxJoints || !more {
		t.Errorf("%d are kept, and that there are more is %v", len(all), more)
	}
}

// TestTerminalAgain: a terminal of the same number at another time is another one, and while one process had both it cannot be told.
func TestTerminalAgain(t *testing.T) {
	master, slave := Object{Master, 1, 3}, Object{Slave, 1, 3}
	has := func(pid uint32, start, at uint64, o, peer Object) Event {
		return Event{Kind: Held, At: at, Process: Process{ID: ID{pid, start}}, Joints: []Joint{{o, peer, Reads | Writes}}}
	}
	h := small(200)
	h.Apply(fork(2, 1, 2), has(2, 2, 3, master, slave), fork(3, 2, 4), has(3, 4, 5, slave, master), exit(3, 4, 6), exit(2, 2, 7),
		fork(4, 1, 8), has(4, 8, 9, master, slave), fork(5, 4, 10), has(5, 10, 11, slave, master), exit(5, 10, 12), exit(4, 8, 13))
	for _, pair := range [][2]ID{{{2, 2}, {3, 4}}, {{4, 8}, {5, 10}}} {
		for i, id := range pair {
			all, _ := h.Joined(id, 10)
			if len(all) != 1 || all[0].Unsure || !slices.Equal(all[0].With, []With{{pair[1-i], Reads | Writes}}) {
				t.Errorf("%v had %+v, not with %v alone", id, all, pair[1-i])
			}
		}
	}
	h = small(200)
	h.Apply(fork(2, 1, 2), has(2, 2, 3, master, slave), fork(4, 1, 8), has(4, 8, 9, master, slave), fork(5, 4, 10), has(5, 10, 11, slave, master),
		exit(5, 10, 12), exit(4, 8, 13), exit(2, 2, 14))
	for _, id := range []ID{{2, 2}, {4, 8}, {5, 10}} {
		if all, _ := h.Joined(id, 10); len(all) != 1 || !all[0].Unsure || len(all[0].With) != 0 {
			t.Errorf("%v had %+v, which cannot be told", id, all)
		}
	}
}

// TestSharedSets: what many have alike takes the place of one.
func TestSharedSets(t *testing.T) {
	h := small(200)
	o := Object{Slave, 1, 3}
	for i := range uint64(150) {
		h.Apply(fork(uint32(2+i), 1, 2+i), Event{Kind: Held, At: 2 + i, Process: Process{ID: ID{uint32(2 + i), 2 + i}}, Joints: []Joint{{o, Object{Master, 1, 3}, Reads}}})
	}
	if n := h.joints.slots.used; n != 1 {
		t.Errorf("they take %d joints", n)
	}
}

func made(pid uint32, parent ID, at uint64) Event {
	return Event{Kind: Forked, At: at, Process: Process{ID: ID{pid, at}, Parent: parent}}
}

// TestShell: a process that makes others, which have pipes of it, comes not to have too many.
func TestShell(t *testing.T) {
	h := small(2000)
	h.Apply(fork(2, 1, 2))
	shell := ID{2, 2}
	for i := range uint64(200) {
		o := Object{Pipe, 1, i}
		reads, writes := Joint{o, o, Reads}, Joint{o, o, Writes}
		passing := []Joint{{o, o, Reads | Passing}, {o, o, Writes | Passing}}
		at := 10 + 10*i
		h.Apply(Event{Kind: Held, At: at, Process: Process{ID: shell}, Joints: passing}, made(uint32(at), shell, at),
			Event{Kind: Held, At: at + 1, Process: Process{ID: shell}, Joints: passing}, made(uint32(at+1), shell, at+1),
			Event{Kind: Held, At: at + 2, Process: Process{ID: ID{uint32(at), at}}, Joints: []Joint{writes}},
			Event{Kind: Held, At: at + 2, Process: Process{ID: ID{uint32(at + 1), at + 1}}, Joints: []Joint{reads}},
			exit(uint32(at), at, at+3), exit(uint32(at+1), at+1, at+3))
		if all, _ := h.Joined(ID{uint32(at), at}, 10); len(all) != 1 || !slices.Equal(all[0].With, []With{{ID{uint32(at + 1), at + 1}, Reads}}) {
			t.Fatalf("the first of pipeline %d had %+v", i, all)
		}
	}
	if all, more := h.Joined(shell, 10); len(all) != 0 || more {
		t.Errorf("the shell had %+v, and more %v", all, more)
	}
}

// TestManyShare: what very many share is looked at within a bound, which is said.
func TestManyShare(t *testing.T) {
	const n = 3 * visitsAnswer / 2
	h := small(n + 10)
	master, slave := Object{Master, 1, 3}, Object{Slave, 1, 3}
	h.Apply(fork(2, 1, 2), Event{Kind: Held, At: 3, Process: Process{ID: ID{2, 2}}, Joints: []Joint{{master, slave, Reads}}})
	for i := range uint64(n) {
		h.Apply(made(uint32(10+i), ID{2, 2}, 10+i), Event{Kind: Held, At: 10 + i, Process: Process{ID: ID{uint32(10 + i), 10 + i}}, Joints: []Joint{{slave, master, Reads}}})
	}
	if all, _ := h.Joined(ID{2, 2}, n); len(all) != 1 || !all[0].More || len(all[0].With) > visitsAnswer {
		t.Errorf("of %d who share it %d are told, more %v", n, len(all[0].With), all[0].More)
	}
	if all, _ := h.Joined(ID{10, 10}, 10); len(all) != 1 || all[0].More || !slices.Equal(all[0].With, []With{{ID{2, 2}, Reads}}) {
		t.Errorf("one of them had %+v", all)
	}
}

// TestManyShareWhatIsPassed: where it cannot be seen whether something was only handed on, since too many share it, there may be more.
func TestManyShareWhatIsPassed(t *testing.T) {
	const n = 3 * visitsAnswer / 2
	h := small(n + 10)
	pipe := Object{Pipe, 1, 3}
	h.Apply(fork(2, 1, 2), Event{Kind: Held, At: 3, Process: Process{ID: ID{2, 2}}, Joints: []Joint{{pipe, pipe, Reads | Passing}}})
	if all, more := h.Joined(ID{2, 2}, 10); len(all) != 1 || more {
		t.Fatalf("it had %+v, more %v", all, more)
	}
	for i := range uint64(n) {
		h.Apply(made(uint32(10+i), ID{1, 1}, 10+i), Event{Kind: Held, At: 10 + i, Process: Process{ID: ID{uint32(10 + i), 10 + i}}, Joints: []Joint{{pipe, pipe, Reads}}})
	}
	if all, more := h.Joined(ID{2, 2}, 10); !more {
		t.Errorf("it had %+v, and that there may be more is not told", all)
	}
}
