package trace

import (
	"github.com/stopd/stopd/host"
)

// users lists everybody who owns a process of the closure, in the order of finding, with their entries in
// utmp (thesis table 3.2).
func (t *tracer) users() {
	logins, err := t.snap.Logins(t.ctx)
	if err != nil {
		t.gap(0, "utmp", err.Error())
	}
	index := map[uint32]int{}
	add := func(uid *uint32, name string) {
		if uid == nil {
			return
		}
		if i, ok := index[*uid]; ok {
			if t.names[i].Name == "" {
				t.names[i].Name = name
			}
			return
		}
		index[*uid] = len(t.names)
		t.names = append(t.names, User{Name: name, UID: *uid})
	}
	for _, n := range t.nodes {
		add(n.RUID, n.RUser)
		add(n.EUID, n.EUser)
	}
	for i, u := range t.names {
		for _, l := range logins {
			if u.Name != "" && l.User == u.Name {
				t.names[i].Logins = append(t.names[i].Logins, UserLogin{Line: l.Line, Host: l.Host, Address: l.Remote.Addr(), Time: l.Time})
			}
		}
	}
	t.utmp(logins)
}

// utmp adds utmp's word to the candidates on whose terminals the commands come. A login of which no
// connection is held any more is one of its own, without a port.
func (t *tracer) utmp(logins []host.Login) {
	for _, n := range t.nodes {
		for _, l := range logins {
			if n.TTY == "" || l.Line != n.TTY || !l.Remote.IsValid() || l.User != n.RUser || t.own(l.Remote.Addr()) {
				continue
			}
			known := false
			for _, p := range t.found {
				if p.Remote.Addr() == l.Remote.Addr() && p.Direction == host.Inbound {
					t.candidate(p, ReasonUtmp)
					known = true
				}
			}
			if !known && t.commanded[n] {
				t.candidate(Previous{Remote: l.Remote, PID: n.PID, Direction: host.Inbound}, ReasonUtmp)
			}
		}
	}
}
