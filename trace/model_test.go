package trace

import (
	"slices"

	"github.com/stopd/stopd/host"
)

// A model is who can send whom data, by brute force: nothing is followed or stopped.
type model struct {
	ps   []host.Process
	data map[[2]int]bool // from the one pid to the other
}

func newModel(ps []host.Process) model {
	m := model{ps: ps, data: map[[2]int]bool{}}
	for _, a := range ps {
		for _, b := range ps {
			for _, d := range a.Descriptors {
				for _, e := range b.Descriptors {
					if d.Object != "" && (d.Peer == e.Object || e.Peer == d.Object) && d.Mode.Writes() && e.Mode.Reads() && !m.onlyWrites(a, b, e.Object) {
						m.data[[2]int{a.PID, b.PID}] = true
					}
				}
			}
		}
	}
	return m
}

// onlyWrites reports whether b is taken to hold a pipe only in order to write to it, as far as a is concerned.
func (m model) onlyWrites(a, b host.Process, o host.Object) bool {
	others := false
	mode := m.modes(o)
	for pid, m := range mode {
		others = others || pid != a.PID && pid != b.PID && m.Reads()
	}
	return !m.pair(o) && mode[b.PID] == host.ReadWrite && others && *a.EUID != *b.EUID
}

// pair reports whether an object is one end of two.
func (m model) pair(o host.Object) bool {
	return slices.ContainsFunc(m.ps, func(p host.Process) bool {
		return slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == o && d.Peer != o })
	})
}

func (m model) owners() map[int]bool {
	set := map[int]bool{}
	for _, p := range m.ps {
		if slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == "asked" }) {
			set[p.PID] = true
		}
	}
	return set
}

// grow adds to a set whatever step joins to it, until nothing is left.
func (m model) grow(set map[int]bool, step func(from, to host.Process) bool) map[int]bool {
	for again := true; again; {
		again = false
		for _, a := range m.ps {
			for _, b := range m.ps {
				if set[a.PID] && !set[b.PID] && step(a, b) {
					set[b.PID], again = true, true
				}
			}
		}
	}
	return set
}

// parent reports whether b is taken to have made a.
func (m model) parent(a, b host.Process) bool {
	return *a.PPID == b.PID && (a.StartTicks == 0 || b.StartTicks <= a.StartTicks)
}

// possible returns the remote ends that can have to do with the asked connection, if whatever joins processes is meant for all of them.
func (m model) possible() []string {
	into := func(a, b host.Process) bool { return m.data[[2]int{b.PID, a.PID}] }
	fed := m.grow(m.owners(), into)
	reached := m.grow(m.owners(), func(a, b host.Process) bool { return m.data[[2]int{a.PID, b.PID}] })
	commanded := m.grow(m.owners(), func(a, b host.Process) bool { return m.parent(a, b) || into(a, b) })
	set := map[string]bool{}
	m.ends(set, func(p host.Process, d host.Descriptor) bool {
		return reached[p.PID] || fed[p.PID] || commanded[p.PID] && d.Direction != host.Outbound
	})
	return sorted(set)
}

// ends adds the connections with other hosts that count.
func (m model) ends(set map[string]bool, counts func(host.Process, host.Descriptor) bool) {
	for _, p := range m.ps {
		for _, d := range p.Descriptors {
			if d.Kind == host.TCP && slices.Contains([]string{"203.0.113.5", "203.0.113.6"}, d.Remote.Addr().String()) && counts(p, d) {
				set[d.Local.String()+" "+d.Remote.String()] = true
			}
		}
	}
}

// descends reports whether b made a, or made who did.
func (m model) descends(a, b host.Process) bool {
	return m.grow(map[int]bool{a.PID: true}, m.parent)[b.PID]
}

// modes returns how each process holds an object.
func (m model) modes(o host.Object) map[int]host.Mode {
	modes := map[int]host.Mode{}
	for _, p := range m.ps {
		for _, d := range p.Descriptors {
			if d.Object != o {
				continue
			}
			if was, ok := modes[p.PID]; ok {
				d.Mode = was.With(d.Mode)
			}
			modes[p.PID] = d.Mode
		}
	}
	return modes
}

// makerOf returns the pid of who holds an object or its other end and made all others that do; 0 for nobody.
func (m model) makerOf(o, peer host.Object) int {
	var holders []host.Process
	for _, p := range m.ps {
		if slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == o || d.Object == peer }) {
			holders = append(holders, p)
		}
	}
	for _, maker := range holders {
		if !slices.ContainsFunc(holders, func(p host.Process) bool {
			return p.PID != maker.PID && (!m.descends(p, maker) || m.descends(maker, p))
		}) {
			return maker.PID
		}
	}
	return 0
}

// A pass is a way of data from one process to another; leaves and enters are true where they pass by what one of them shares with those alone
// that it made.
type pass struct {
	from, to       host.Process
	leaves, enters bool
}

// passes are the ways of data, without those from one child to another by what their maker has as well: these pass in weak ways alone, among one user's.
func (m model) passes(weak bool) (all []pass) {
	for _, a := range m.ps {
		for _, b := range m.ps {
			for _, d := range a.Descriptors {
				for _, e := range b.Descriptors {
					if a.PID == b.PID || d.Object == "" || d.Peer != e.Object && e.Peer != d.Object || m.onlyWrites(a, b, e.Object) {
						continue
					}
					w, r := m.modes(d.Object)[a.PID], m.modes(e.Object)[b.PID]
					if !w.Writes() || !r.Reads() {
						continue
					}
					maker := m.makerOf(d.Object, e.Object)
					wired := d.Object == e.Object && w == host.Write && r == host.Read
					if maker != 0 && maker != a.PID && maker != b.PID && !wired && !m.descends(a, b) && !m.descends(b, a) &&
						!(weak && m.users(a.PID, maker) && m.users(b.PID, maker)) {
						continue
					}
					all = append(all, pass{a, b, maker == a.PID, maker == b.PID})
				}
			}
		}
	}
	return all
}

// users reports whether two processes are one user's.
func (m model) users(pids ...int) bool {
	var of []uint32
	for _, p := range m.ps {
		if slices.Contains(pids, p.PID) {
			of = append(of, *p.EUID)
		}
	}
	return len(slices.Compact(of)) == 1
}

// A spot is where a walk is: at a process, come to by a maker's own service for those that it made, or by nothing but that it made another; whether the last step
// was among one user's processes; and whether another user's was ever entered by such a service.
type spot struct {
	pid                          int
	service, beside, own, served bool
}

// walk returns who is come to from the owners against the ways of data, or along them, by parents as well, and whether only as somebody else's service.
func (m model) walk(passes []pass, against, parents, weak bool) map[int]bool {
	served, been := map[int]bool{}, map[spot]bool{}
	var todo []spot
	for pid := range m.owners() {
		todo = append(todo, spot{pid: pid})
	}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		if been[at] {
			continue
		}
		been[at] = true
		was, ok := served[at.pid]
		served[at.pid] = at.served && (was || !ok)
		step := func(to int, leaves, enters, beside bool) {
			own := m.users(at.pid, to)
			if !leaves || !at.service && !at.beside || weak && own && at.own {
				todo = append(todo, spot{to, enters, beside, own, at.served || enters && !own})
			}
		}
		for _, p := range passes {
			switch {
			case against && p.to.PID == at.pid:
				step(p.from.PID, p.enters, p.leaves, false)
			case !against && p.from.PID == at.pid:
				step(p.to.PID, p.leaves, p.enters, false)
			}
		}
		for _, a := range m.ps {
			for _, b := range m.ps {
				if parents && a.PID == at.pid && m.parent(a, b) {
					step(b.PID, false, false, true)
				}
			}
		}
	}
	return served
}

// candidates returns the remote ends that are named. In weak ways it is gone only where the others lead to none that can have commanded anything.
func (m model) candidates() []string {
	set, came := map[string]bool{}, false
	for _, weak := range []bool{false, true} {
		passes := m.passes(weak)
		fed, reached := m.walk(passes, true, false, weak), m.walk(passes, false, false, weak)
		commanded := m.walk(passes, true, true, weak)
		m.ends(set, func(p host.Process, d host.Descriptor) bool {
			byC, isC := commanded[p.PID]
			byR, isR := reached[p.PID]
			_, isF := fed[p.PID]
			out := d.Direction == host.Outbound
			if !isC && !isR || (byC || !isC) && (byR || !isR) || out && (weak || !isF && !isR) {
				return false
			}
			came = came || !out
			return true
		})
		if came {
			break
		}
	}
	return sorted(set)
}
