package trace

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
)

// What the system keeps of logins says where the users of the closure came from, also where their connection is
// closed, or is held by a process from which theirs descend no more. What each source is trusted with:
// docs/decisions/0010-login-evidence.md.

// slack is by how much the times may differ that several programs noted of one moment: a process's start is known
// to some hundredths, and old logs know seconds.
const slack = 2 * time.Second

// Bounds on the look for the process that let a user in.
const (
	maxMembers  = 32 // of one audit session, from the lowest pid
	maxAncestry = 64 // of each of them
)

// A session is a login session of processes of the closure.
type session struct {
	members []*node
	// login is logind's word; nil where only the audit session is known.
	login *host.Login
	audit *uint32
	// process let the user in, and still holds the connection; zero where that is closed or was not found.
	process    host.Process
	connection host.Descriptor
	// record is sshd's own of it.
	record *host.Login
}

// login makes candidates of the sessions where nothing else explains where the commands come from: a session tells
// who began what goes on, and that need not be who directs it now. It fills each process's login.
func (t *tracer) login(logins []host.Login) {
	sessions := t.sessions(logins)
	for _, s := range sessions {
		t.confirm(s)
	}
	t.utmp(logins)
	var left []*session
	if !t.explained() {
		for _, s := range sessions {
			if slices.ContainsFunc(s.members, func(n *node) bool { return t.commanded[n] }) {
				t.door(s)
				left = append(left, s)
			}
		}
	}
	records := t.records(left)
	for _, s := range sessions {
		if s.connection.Remote.IsValid() {
			s.record = t.recordOf(records, s.process, s.connection)
		} else {
			s.record = endedRecord(records, s.login)
		}
	}
	for _, s := range left {
		t.leftBehind(s)
	}
	t.fill(sessions, records, logins)
}

// sessions groups the closure by login session.
func (t *tracer) sessions(logins []host.Login) []*session {
	var all []*session
	for _, n := range t.nodes {
		s := session{audit: n.AuditSession}
		if i := slices.IndexFunc(logins, func(l host.Login) bool { return inGroup(n.Cgroup, l.Cgroup) }); i >= 0 {
			s.login, s.audit = &logins[i], logins[i].Audit
		} else if i := slices.IndexFunc(logins, func(l host.Login) bool { return same(n.AuditSession, l.Audit) }); i >= 0 {
			s.login = &logins[i]
		}
		if s.login == nil && s.audit == nil {
			continue
		}
		i := slices.IndexFunc(all, func(o *session) bool { return o.login == s.login && (s.login != nil || same(o.audit, s.audit)) })
		if i < 0 {
			i, all = len(all), append(all, &s)
		}
		all[i].members = append(all[i].members, n)
	}
	return all
}

// same reports whether two values are known, and equal.
func same[T comparable](a, b *T) bool { return a != nil && b != nil && *a == *b }

// inGroup reports whether a control group is another or below it.
func inGroup(group, top string) bool {
	return top != "" && (group == top || strings.HasPrefix(group, top+"/"))
}

// has reports whether a process is in the session.
func (s *session) has(p host.Process) bool {
	return s.login != nil && inGroup(p.Cgroup, s.login.Cgroup) || same(p.AuditSession, s.audit)
}

// letIn reports whether the user of a session came in by a connection of a process. It was accepted by a listener
// outside of the session, or it is of the process that began the session. What the user's own servers accepted later
// has nothing to do with it.
func (t *tracer) letIn(s *session, p host.Process, d host.Descriptor) bool {
	if !t.remote(d) || t.openedHere(d) || d.Direction == host.Outbound {
		return false
	}
	if s.login != nil {
		if s.login.Remote.IsValid() && s.login.Remote.Addr() != d.Remote.Addr() {
			return false
		}
		if p.PID == s.login.PID && s.has(p) && !p.Start.After(s.login.Time.Add(slack)) {
			return true
		}
	}
	if p.PPID == nil {
		return false
	}
	q, err := t.snap.Process(t.ctx, *p.PPID)
	return err == nil && !s.has(q) && q.StartTicks <= p.StartTicks && slices.ContainsFunc(q.Descriptors, func(l host.Descriptor) bool {
		return l.Kind == d.Kind && l.Listening() && l.Local.Port() == d.Local.Port()
	})
}

// confirm adds the session's word to the candidates that it speaks for: those by whose connection its user came in.
// Several processes may hold that; one of them let the user in.
func (t *tracer) confirm(s *session) {
	for _, n := range t.nodes {
		if !s.leadsTo(n) {
			continue
		}
		for _, d := range n.Descriptors {
			o := d.Outside()
			i := slices.IndexFunc(t.found, func(f Previous) bool { return f.Corroborated && f.Remote == o.Remote && f.Local == o.Local })
			if i >= 0 && t.letIn(s, n.Process.Process, d) {
				s.process, s.connection = n.Process.Process, d
				t.candidate(t.found[i], ReasonAuditSession)
			}
		}
	}
}

// leadsTo reports whether a process is of the session, or an ancestor of one that is.
func (s *session) leadsTo(n *node) bool {
	return slices.ContainsFunc(s.members, func(m *node) bool { return m.descends(n) })
}

// ancestry returns a process and its ancestors, as far as they are in the closure. A host that shows its processes
// one after the other can show them as each other's ancestors.
func (n *node) ancestry() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		for range maxAncestry {
			if n == nil || !yield(n) {
				return
			}
			n = n.parent
		}
	}
}

// door looks for the process that let the session's user in, and for its connection: who began the session, or
// whoever of the same audit session came in by a listener, and their ancestors.
func (t *tracer) door(s *session) {
	if s.connection.Remote.IsValid() {
		return
	}
	if s.login != nil && t.climb(s, s.login.PID) || s.audit == nil {
		return
	}
	pids, err := t.snap.Audited(t.ctx, *s.audit)
	if err != nil {
		t.gap(0, "audit session", err.Error())
	}
	if len(pids) > maxMembers {
		t.gap(0, "audit session", "bound: the first of its processes alone")
		pids = pids[:maxMembers]
	}
	for _, pid := range pids {
		if t.climb(s, pid) {
			return
		}
	}
}

// climb looks at a process of a session and its ancestors.
func (t *tracer) climb(s *session, pid int) bool {
	var child host.Process
	for range maxAncestry {
		if pid <= 1 || t.ctx.Err() != nil {
			return false
		}
		p, err := t.snap.Process(t.ctx, pid)
		if err != nil || child.PID == 0 && !s.has(p) || child.PID != 0 && p.StartTicks > child.StartTicks {
			return false // it has ended, and its pid may be somebody else's
		}
		for _, d := range p.Descriptors {
			if t.letIn(s, p, d) {
				s.process, s.connection = p, d
				return true
			}
		}
		if p.PPID == nil {
			return false
		}
		child, pid = p, *p.PPID
	}
	return false
}

// leftBehind makes a candidate of a session that nothing else leads to. Where its connection is closed, the host
// is known and perhaps its port, and nobody can be asked about it.
func (t *tracer) leftBehind(s *session) {
	n := s.members[slices.IndexFunc(s.members, func(n *node) bool { return t.commanded[n] })]
	if d := s.connection; d.Remote.IsValid() {
		if t.byPID[s.process.PID] == nil {
			t.add(s.process.PID, Via{From: new(n.Index), By: ByRecordedParent})
		}
		t.candidateBy(d, s.process.PID, ReasonAuditSession)
		return
	}
	if s.login == nil {
		if !s.begun() {
			t.gap(n.PID, "login", "who let the user of its audit session in is not there any more")
		}
		return
	}
	remote := s.login.Remote
	if s.record != nil {
		remote = s.record.Remote
	}
	switch {
	case !remote.IsValid() && s.login.Host != "":
		t.gap(n.PID, "login", "the system has the name of the host that its user came from, and no address: "+s.login.Host)
	case !remote.IsValid(): // on this host's own console, or by a service
	case t.own(remote.Addr()):
		t.gap(n.PID, "login", "its user came from this host itself, by a connection that is closed")
	default:
		t.candidate(Previous{Remote: remote, PID: n.PID, Direction: host.Inbound, Corroborated: true}, ReasonAuditSession)
	}
}

// begun reports whether a process outside of the session, from which one of it descends, began it: cron, or sshd that
// is still there.
func (s *session) begun() bool {
	return slices.ContainsFunc(s.members, func(n *node) bool {
		for a := range n.ancestry() {
			if !a.isInit() && !s.has(a.Process.Process) {
				return true
			}
		}
		return false
	})
}

// claims adds what the environment of the processes that command the asked socket says of their login.
// The user can have written it, so alone it is the user's word.
func (t *tracer) claims() {
	for _, n := range t.nodes {
		l := n.Login
		if !t.commanded[n] || l == nil || l.Source != host.LoginEnvironment || !l.Remote.IsValid() {
			continue
		}
		d := t.connection(l.Local, l.Remote)
		if d.Peer != "" || d.Within || d.Outer == nil && t.own(l.Remote.Addr()) {
			continue // from this host
		}
		o := d.Outside()
		t.candidate(Previous{Remote: o.Remote, Local: o.Local, PID: n.PID, Direction: host.Inbound}, ReasonSSHConnection)
	}
}

// utmp adds utmp's word to the candidates on whose terminals the commands come. A login of which no connection is
// held any more is one of its own, without a port. Programs that are no login write there for any user (utempter(8)),
// so alone it is the user's word.
func (t *tracer) utmp(logins []host.Login) {
	for _, n := range t.nodes {
		l := t.utmpOf(n, logins)
		if l == nil || !l.Remote.IsValid() || t.own(l.Remote.Addr()) {
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

// utmpOf returns the entry of utmp that a process belongs to, nil for none: that of its user's on its terminal, or
// that of a process that it descends from, whoever's it is since (su, sudo). An entry that is younger than the
// process is another's.
func (t *tracer) utmpOf(n *node, logins []host.Login) *host.Login {
	younger := func(at time.Time, n *node) bool { return !n.Start.IsZero() && at.After(n.Start.Add(slack)) }
	for m := range n.ancestry() {
		for i, l := range logins {
			if l.Source != host.LoginUtmp || !l.Ended.IsZero() || m.isInit() || younger(l.Time, n) {
				continue
			}
			// Who was let in is as old as the entry, or older; else the pid was used again.
			if l.PID == m.PID && !m.Start.After(l.Time.Add(slack)) || m == n && n.TTY != "" && l.Line == n.TTY && l.User == n.RUser {
				return &logins[i]
			}
		}
	}
	return nil
}
