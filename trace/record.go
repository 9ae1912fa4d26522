package trace

import (
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// maxRecordAge is how long before the beginning of a session sshd may have logged that it lets its user in.
const maxRecordAge = 2 * time.Minute

// records asks what sshd, or whatever let somebody in, logged of it: root's processes of the closure that hold an
// inbound connection and have a child in the closure, and those that began the given sessions.
func (t *tracer) records(left []*session) []host.Login {
	var ids []host.ID
	add := func(id host.ID) {
		if id.PID > 1 && !slices.ContainsFunc(ids, func(o host.ID) bool { return o.PID == id.PID }) {
			ids = append(ids, id)
		}
	}
	for _, n := range t.nodes {
		p := n.parent
		if p == nil || p.EUID == nil || *p.EUID != 0 {
			continue
		}
		if slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool {
			return t.remote(d) && !t.openedHere(d) && d.Direction != host.Outbound && !p.accepts(d)
		}) {
			add(p.ID())
		}
	}
	for _, s := range left {
		switch {
		case s.connection.Remote.IsValid():
			add(s.process.ID())
		case s.login != nil:
			add(host.ID{PID: s.login.PID})
		}
	}
	if len(ids) == 0 {
		return nil
	}
	records, err := t.snap.Accepted(t.ctx, ids)
	if err != nil {
		t.gap(0, "sshd's records", err.Error())
	}
	return records
}

// recordOf returns the record of exactly this connection by the process that holds it; nil where there is none.
// What stands in a log that any user may write to counts only where it is from before the user's first process, and
// where no other line says otherwise.
func (t *tracer) recordOf(records []host.Login, p host.Process, d host.Descriptor) *host.Login {
	var first time.Time // when its first child in the closure began
	for _, n := range t.nodes {
		if n.parent != nil && n.parent.PID == p.PID && (first.IsZero() || n.Start.Before(first)) {
			first = n.Start
		}
	}
	var best *host.Login
	for i, r := range records {
		trusted := r.Log == host.LogJournal
		switch {
		case r.PID != p.PID || r.Remote != d.Remote:
		case r.Time.Before(p.Start.Add(-slack)): // by another process that had this pid
		case !trusted && !first.IsZero() && r.Time.After(first.Add(slack)):
		case best != nil && best.Log == host.LogJournal && !trusted:
		case best != nil && !trusted && (best.Key != r.Key || best.User != r.User):
			t.gap(p.PID, "log of sshd", "its lines about this connection differ: a user may have written one")
			return nil
		default:
			best = &records[i]
		}
	}
	return best
}

// endedRecord returns the record of a session's beginning by a process that has ended; nil where there is none.
func endedRecord(records []host.Login, l *host.Login) *host.Login {
	var best *host.Login
	for i, r := range records {
		if l == nil || r.PID != l.PID || r.Log != host.LogJournal || r.User != l.User || l.Remote.IsValid() && r.Remote.Addr() != l.Remote.Addr() ||
			r.Time.After(l.Time.Add(slack)) || r.Time.Before(l.Time.Add(-maxRecordAge)) {
			continue
		}
		if best == nil || r.Time.After(best.Time) {
			best = &records[i]
		}
	}
	return best
}

// fill writes down of each process of the closure by which login it came to be, by the best source there is.
func (t *tracer) fill(sessions []*session, records, logins []host.Login) {
	for _, n := range t.nodes {
		best := n.Login
		if l := t.utmpOf(n, logins); l != nil && l.Remote.IsValid() {
			best = &host.Login{Source: host.LoginUtmp, Remote: l.Remote, Line: l.Line, Time: l.Time}
		}
		line := ""
		if i := slices.IndexFunc(sessions, func(s *session) bool { return slices.Contains(s.members, n) }); i >= 0 {
			if l := sessions[i].word(); l != nil {
				best, line = l, l.Line
			}
		}
		for m := range n.ancestry() {
			if r := t.recordedAt(m, records); r != nil {
				best = sshdLogin(*r, line)
				break
			}
		}
		n.Login = best
	}
}

// recordedAt returns the record of a connection that a process of the closure holds.
func (t *tracer) recordedAt(n *node, records []host.Login) *host.Login {
	for _, d := range n.Descriptors {
		if t.remote(d) && !t.openedHere(d) && d.Direction != host.Outbound {
			if r := t.recordOf(records, n.Process.Process, d); r != nil {
				return r
			}
		}
	}
	return nil
}

// word is what is known of a session's beginning; nil for nothing.
func (s *session) word() *host.Login {
	var l host.Login
	if s.login != nil {
		l = host.Login{Source: host.LoginAudit, Remote: s.login.Remote, Line: s.login.Line, Time: s.login.Time}
	}
	if s.record != nil {
		return sshdLogin(*s.record, l.Line)
	}
	if s.connection.Remote.IsValid() {
		l.Source, l.Remote = host.LoginAudit, s.connection.Remote
	}
	if l.Source == "" {
		return nil
	}
	return &l
}

func sshdLogin(r host.Login, line string) *host.Login {
	return &host.Login{Source: host.LoginSSHD, Remote: r.Remote, Line: line, Time: r.Time, Key: r.Key, Log: r.Log}
}
