package trace

import (
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
)

// logins are all that the system says of who is logged in, or was.
func (t *tracer) logins() []host.Login {
	logins, err := t.snap.Logins(t.ctx)
	if err != nil {
		t.gap(0, "logins", err.Error())
	}
	return logins
}

// users lists everybody who owns a process of the closure, in the order of finding, with their logins (thesis
// table 3.2): those that are open, and those in which a process of the closure began.
func (t *tracer) users(logins []host.Login) {
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
	for i := range t.names {
		t.names[i].Logins = t.loginsOf(t.names[i].Name, logins)
	}
}

// maxUserLogins bounds what is listed of one user, who can open many.
const maxUserLogins = 64

func (t *tracer) loginsOf(name string, logins []host.Login) []UserLogin {
	var listed []host.Login
	for _, l := range logins {
		if name == "" || l.User != name || !l.Ended.IsZero() && !t.beganIn(name, l) || l.Line == "" && l.Host == "" {
			continue
		}
		// logind knows most of what is in utmp and wtmp as well. It keeps a session while a process of it is left, and
		// has not when its user logged out.
		if l.Source == host.LoginAudit && slices.ContainsFunc(listed, func(o host.Login) bool { return sameLogin(l, o) }) {
			continue
		}
		if len(listed) == maxUserLogins {
			t.gap(0, "logins of "+name, "bound: "+strconv.Itoa(maxUserLogins))
			break
		}
		listed = append(listed, l)
	}
	var ls []UserLogin
	for _, l := range listed {
		ls = append(ls, UserLogin{Line: l.Line, Host: l.Host, Address: l.Remote.Addr(), Time: l.Time, Ended: l.Ended})
	}
	return ls
}

// sameLogin reports whether a session of logind's is one of utmp or wtmp. Whoever let the user in may have told the one much later than
// the other, but it is the same process.
func sameLogin(l, o host.Login) bool {
	if o.Line != l.Line || o.Remote.Addr() != l.Remote.Addr() {
		return false
	}
	apart := l.Time.Sub(o.Time).Abs()
	return o.Ended.IsZero() || apart <= slack || l.PID > 0 && l.PID == o.PID && apart <= maxRecordAge
}

// beganIn reports whether a process of a user's in the closure began in a session that has ended.
func (t *tracer) beganIn(name string, l host.Login) bool {
	return slices.ContainsFunc(t.nodes, func(n *node) bool {
		return (n.RUser == name || n.EUser == name) && !n.Start.Before(l.Time.Add(-slack)) && !n.Start.After(l.Ended)
	})
}
