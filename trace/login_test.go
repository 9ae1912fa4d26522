package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

const (
	aliceScope = "/user.slice/user-1000.slice/session-3.scope"
	bobScope   = "/user.slice/user-1001.slice/session-4.scope"
	aliceKey   = "SHA256:alice"
	bobKey     = "SHA256:bob"
)

var loginTime = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func at(seconds int, p host.Process) host.Process {
	p.Start = loginTime.Add(time.Duration(seconds) * time.Second)
	p.StartTicks = uint64(1000000 + 100*seconds)
	return p
}

func inScope(cgroup string, audit uint32, p host.Process) host.Process {
	p.Cgroup = cgroup
	if audit != 0 {
		p.AuditSession = new(audit)
	}
	return p
}

// daemon is what runs since the host began.
func daemon(pid int, ds ...host.Descriptor) host.Process {
	return at(-1000, process(pid, 1, ds...))
}

func first() host.Process {
	p := at(-2000, process(1, 0))
	p.EUID = new(uint32(0))
	return p
}

// monitor is the part of sshd that is root's.
func monitor(pid int, scope string, audit uint32, seconds int, ds ...host.Descriptor) host.Process {
	return inScope(scope, audit, at(seconds, process(pid, 700, ds...)))
}

// left is a process of alice's that holds the asked connection and descends from nobody.
func left(scope string, audit uint32) host.Process {
	return inScope(scope, audit, at(30, as(1000, process(90, 1, asked()))))
}

func logindSession(user, scope, remote string, audit uint32, leader int) host.Login {
	l := host.Login{Source: host.LoginAudit, User: user, Cgroup: scope, Host: remote, PID: leader, Time: loginTime.Add(2 * time.Second), Line: "pts/3"}
	if a, err := netip.ParseAddr(remote); err == nil {
		l.Remote = netip.AddrPortFrom(a, 0)
	}
	if audit != 0 {
		l.Audit = new(audit)
	}
	return l
}

func logged(pid int, remote, key, log string, seconds int) host.Login {
	return host.Login{Source: host.LoginSSHD, User: "user1000", PID: pid, Remote: netip.MustParseAddrPort(remote), Key: key, Log: log,
		Time: loginTime.Add(time.Duration(seconds) * time.Second)}
}

func TestLeftBehind(t *testing.T) {
	listener := daemon(700, listen(22))
	bob := []host.Process{
		monitor(810, bobScope, 4, 10, in(22, other)),
		inScope(bobScope, 4, at(12, as(1001, process(811, 810)))),
	}
	alice := monitor(800, aliceScope, 3, 1, in(22, attacker))
	others := []host.Login{logindSession("user1001", bobScope, netip.MustParseAddrPort(other).Addr().String(), 4, 810)}
	aliceIn := logindSession("user1000", aliceScope, "203.0.113.5", 3, 800)
	with := func(change func(*host.Login)) host.Login {
		l := aliceIn
		change(&l)
		return l
	}
	tests := []struct {
		name     string
		ps       []host.Process
		logins   []host.Login
		accepted []host.Login
		want     []string
		login    string
		gaps     []string
	}{
		{"still logged in", []host.Process{alice, left(aliceScope, 3)}, []host.Login{aliceIn}, nil,
			[]string{attacker + " audit-session"}, "audit " + attacker, nil},
		{"still logged in, without audit", []host.Process{inScope(aliceScope, 0, at(1, process(800, 700, in(22, attacker)))), left(aliceScope, 0)},
			[]host.Login{with(func(l *host.Login) { l.Audit = nil })}, nil,
			[]string{attacker + " audit-session"}, "audit " + attacker, nil},
		{"still logged in, without logind", []host.Process{monitor(800, "", 3, 1, in(22, attacker)), left("", 3)}, nil, nil,
			[]string{attacker + " audit-session"}, "audit " + attacker, nil},
		{"logged out", []host.Process{left(aliceScope, 3)}, []host.Login{aliceIn}, nil,
			[]string{"203.0.113.5:0 audit-session"}, "audit 203.0.113.5:0", nil},
		{"logged out, by the audit session alone", []host.Process{left("/other", 3)}, []host.Login{aliceIn}, nil,
			[]string{"203.0.113.5:0 audit-session"}, "audit 203.0.113.5:0", nil},
		{"logged out, with sshd's record", []host.Process{left(aliceScope, 3)}, []host.Login{aliceIn},
			[]host.Login{logged(800, attacker, aliceKey, host.LogJournal, 1)},
			[]string{attacker + " audit-session"}, "sshd " + attacker + " " + aliceKey, nil},
		{"logged out, with a record that others could have written", []host.Process{left(aliceScope, 3)}, []host.Login{aliceIn},
			[]host.Login{logged(800, attacker, aliceKey, "/var/log/auth.log", 1)},
			[]string{"203.0.113.5:0 audit-session"}, "audit 203.0.113.5:0", nil},
		{"logged out, with records of others that had the pid", []host.Process{left(aliceScope, 3)}, []host.Login{aliceIn},
			[]host.Login{logged(800, "203.0.113.5:999", bobKey, host.LogJournal, 20), logged(800, "203.0.113.5:998", bobKey, host.LogJournal, -900), logged(800, "203.0.113.6:997", bobKey, host.LogJournal, 1)},
			[]string{"203.0.113.5:0 audit-session"}, "audit 203.0.113.5:0", nil},
		{"logged out, and the pid is that of a service of hers", []host.Process{left(aliceScope, 3),
			inScope(aliceScope, 3, at(60, as(1000, process(800, 1, in(8000, "203.0.113.5:4444")))))}, []host.Login{aliceIn}, nil,
			[]string{"203.0.113.5:0 audit-session"}, "audit 203.0.113.5:0", nil},
		{"logged out, and her own server has clients", []host.Process{left("", 3), inScope("", 3, at(20, as(1000, process(70, 1, listen(8000))))),
			inScope("", 3, at(40, as(1000, process(71, 70, in(8000, other)))))}, nil, nil,
			nil, "", []string{"90 login: who let the user of its audit session in is not there any more"}},
		{"logged out, and her own server was left by its parent", []host.Process{left("", 3),
			inScope("", 3, at(40, as(1000, process(71, 1, in(8000, other)))))}, nil, nil,
			nil, "", []string{"90 login: who let the user of its audit session in is not there any more"}},
		{"from a host without an address", []host.Process{left(aliceScope, 3)}, []host.Login{with(func(l *host.Login) { l.Host, l.Remote = "a.example", netip.AddrPort{} })}, nil,
			nil, "audit", []string{"90 login: the system has the name of the host that its user came from, and no address: a.example"}},
		{"from this host", []host.Process{left(aliceScope, 3)}, []host.Login{logindSession("user1000", aliceScope, own.String(), 3, 800)}, nil,
			nil, "audit 192.0.2.2:0", []string{"90 login: its user came from this host itself, by a connection that is closed"}},
		{"on the console", []host.Process{left(aliceScope, 3)}, []host.Login{logindSession("user1000", aliceScope, "", 3, 800)}, nil,
			nil, "audit", nil},
		{"by cron", []host.Process{inScope("/system.slice/cron.service", 5, at(29, process(60, 700))), func() host.Process {
			p := left("/system.slice/cron.service", 5)
			p.PPID = new(60)
			return p
		}()}, nil, nil, nil, "", nil},
		{"in no session", []host.Process{left("/system.slice/x.service", 0)}, []host.Login{aliceIn}, nil, nil, "", nil},
		{"in a group that the user made", []host.Process{left("/user.slice/user-1000.slice/user@1000.service/session-3.scope", 0)}, []host.Login{aliceIn}, nil, nil, "", nil},
		{"by a connection that explains it", []host.Process{alice, func() host.Process {
			p := left(aliceScope, 3)
			p.Descriptors = append(p.Descriptors, number(5, in(8000, "203.0.113.77:1")))
			return p
		}()}, []host.Login{aliceIn}, nil, []string{"203.0.113.77:1 inbound"}, "audit 203.0.113.5:0", nil},
		{"as another user", []host.Process{alice, func() host.Process {
			p := left(aliceScope, 3)
			p.RUID, p.EUID, p.RUser = new(uint32(0)), new(uint32(0)), "root"
			return p
		}()}, []host.Login{aliceIn}, nil, []string{attacker + " audit-session"}, "audit " + attacker, nil},
		{"with an environment that says otherwise", []host.Process{alice, func() host.Process {
			p := left(aliceScope, 3)
			p.Login = login(other, "192.0.2.2:22")
			return p
		}()}, []host.Login{aliceIn}, nil, []string{other + " ssh-connection uncorroborated", attacker + " audit-session"}, "audit " + attacker, nil},
		{"with an environment that says so", []host.Process{alice, func() host.Process {
			p := left(aliceScope, 3)
			p.Login = login(attacker, "192.0.2.2:22")
			return p
		}()}, []host.Login{aliceIn}, nil, []string{attacker + " ssh-connection,audit-session"}, "audit " + attacker, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(slices.Concat([]host.Process{first(), listener}, bob, tt.ps)...)
			h.Recording.Logins = append(slices.Clone(others), tt.logins...)
			h.Recording.Accepted = append(tt.accepted, logged(810, other, bobKey, host.LogJournal, 10))
			r := run(t, h)
			want := summary{Previous: tt.want, Gaps: tt.gaps}
			got := summarize(r, want)
			if tt.gaps == nil {
				got.Gaps = nil
				for _, g := range r.Gaps {
					if g.What == "login" {
						t.Errorf("gap %+v", g)
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if said := loginOf(r, 90); said != tt.login {
				t.Errorf("login is %q, want %q", said, tt.login)
			}
		})
	}
}

// Of an audit session with very many processes only the first are looked at for who let the user in, and that is said.
func TestAuditSessionBound(t *testing.T) {
	for _, before := range []int{maxMembers - 2, maxMembers} {
		h := recording(first(), daemon(700, listen(22)), monitor(800, "", 3, 1, in(22, attacker)), left("", 3))
		for i := range before {
			h.Recording.Processes = append(h.Recording.Processes, inScope("", 3, at(20, as(1000, process(100+i, 1)))))
		}
		want := summary{Previous: []string{attacker + " audit-session"}, Gaps: none}
		if before == maxMembers {
			want = summary{Previous: none, Gaps: []string{"0 audit session: bound: the first of its processes alone",
				"90 login: who let the user of its audit session in is not there any more"}}
		}
		if d := cmp.Diff(want, summarize(run(t, h), want)); d != "" {
			t.Errorf("%d before (-want +got):\n%s", before, d)
		}
	}
}

// loginOf writes the login of a process.
func loginOf(r Result, pid int) string {
	for _, p := range r.Processes {
		if p.PID != pid || p.Login == nil {
			continue
		}
		s := p.Login.Source
		if p.Login.Remote.IsValid() {
			s += " " + p.Login.Remote.String()
		}
		if p.Login.Key != "" {
			s += " " + p.Login.Key
		}
		return s
	}
	return ""
}

// Alice is logged in, and her shell holds the asked connection.
func TestRecords(t *testing.T) {
	const log = "/var/log/auth.log"
	tests := []struct {
		name     string
		accepted []host.Login
		want     string
		gap      bool
	}{
		{"none", nil, "", false},
		{"the journal", []host.Login{logged(800, attacker, aliceKey, host.LogJournal, 1)}, "sshd " + attacker + " " + aliceKey, false},
		{"a log", []host.Login{logged(800, attacker, aliceKey, log, 1)}, "sshd " + attacker + " " + aliceKey, false},
		{"a password", []host.Login{logged(800, attacker, "", log, 1)}, "sshd " + attacker, false},
		{"of another port", []host.Login{logged(800, "203.0.113.5:1", aliceKey, host.LogJournal, 1)}, "", false},
		{"of another process", []host.Login{logged(801, attacker, aliceKey, host.LogJournal, 1)}, "", false},
		{"of an earlier process", []host.Login{logged(800, attacker, aliceKey, host.LogJournal, -60)}, "", false},
		{"a log's lines that differ", []host.Login{logged(800, attacker, aliceKey, log, 1), logged(800, attacker, bobKey, log, 1)}, "", true},
		{"a line that came later", []host.Login{logged(800, attacker, aliceKey, log, 1), logged(800, attacker, bobKey, log, 60)}, "sshd " + attacker + " " + aliceKey, false},
		{"a line that came later alone", []host.Login{logged(800, attacker, bobKey, log, 60)}, "", false},
		{"the journal against a line", []host.Login{logged(800, attacker, bobKey, log, 1), logged(800, attacker, aliceKey, host.LogJournal, 1), logged(800, attacker, bobKey, log, 1)},
			"sshd " + attacker + " " + aliceKey, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(first(), daemon(700, listen(22)), at(1, process(800, 700, in(22, attacker))),
				at(5, as(1000, process(801, 800))), at(6, as(1000, process(802, 801, asked()))))
			h.Recording.Accepted = tt.accepted
			r := run(t, h)
			if got := loginOf(r, 802); got != tt.want {
				t.Errorf("login is %q, want %q", got, tt.want)
			}
			if got := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.What == "log of sshd" }); got != tt.gap {
				t.Errorf("a gap: %t, want %t", got, tt.gap)
			}
			want := summary{Previous: []string{attacker + " inbound"}}
			if d := cmp.Diff(want, summarize(r, want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A session confirms the connection by which its user came in, whoever else holds it, and no other.
func TestAuditSessionConfirms(t *testing.T) {
	h := recording(first(), daemon(700, listen(22)), monitor(800, aliceScope, 3, 1, in(22, attacker)),
		inScope(aliceScope, 3, at(3, as(1000, process(801, 800, in(22, attacker))))),
		inScope(aliceScope, 3, at(5, as(1000, process(802, 801, asked(), number(4, in(8000, other)))))))
	h.Recording.Logins = []host.Login{logindSession("user1000", aliceScope, "203.0.113.5", 3, 800)}
	want := summary{Previous: []string{other + " inbound", attacker + " inbound,audit-session"}}
	if d := cmp.Diff(want, summarize(run(t, h), want)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUtmpOf(t *testing.T) {
	entry := func(pid, seconds int, line, user string) host.Login {
		return host.Login{Source: host.LoginUtmp, User: user, Line: line, PID: pid, Remote: netip.MustParseAddrPort("203.0.113.5:0"), Time: loginTime.Add(time.Duration(seconds) * time.Second)}
	}
	for _, tt := range []struct {
		name  string
		login host.Login
		want  string
	}{
		{"an ancestor's, through su", entry(801, 5, "pts/3", "user1000"), "utmp 203.0.113.5:0"},
		{"of a terminal, but another's", entry(5, 5, "pts/4", "user1000"), ""},
		{"of a pid that is used again", entry(801, -60, "pts/3", "user1000"), ""},
		{"younger than the process", entry(5, 60, "pts/4", "root"), ""},
		{"of its terminal", entry(5, 5, "pts/4", "root"), "utmp 203.0.113.5:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := at(8, process(802, 801, asked()))
			p.TTY, p.RUser = "pts/4", "root"
			h := recording(first(), daemon(700, listen(22)), at(1, process(800, 700, in(22, attacker))), at(5, as(1000, process(801, 800))), p)
			h.Recording.Logins = []host.Login{tt.login}
			if got := loginOf(run(t, h), 802); got != tt.want {
				t.Errorf("login is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEndedLogins(t *testing.T) {
	ended := func(line string, from, to int) host.Login {
		return host.Login{Source: host.LoginUtmp, User: "user1000", Line: line, Time: loginTime.Add(time.Duration(from) * time.Second), Ended: loginTime.Add(time.Duration(to) * time.Second)}
	}
	h := recording(first(), at(30, as(1000, process(90, 1, asked()))))
	// logind keeps the sessions on pts/2 and pts/4 as long as the process is left, and has others there that are open.
	kept := func(line string, from int) host.Login {
		return host.Login{Source: host.LoginAudit, User: "user1000", Line: line, Time: loginTime.Add(time.Duration(from) * time.Second)}
	}
	by := func(pid int, l host.Login) host.Login {
		l.PID = pid
		return l
	}
	h.Recording.Logins = []host.Login{ended("pts/1", 0, 20), ended("pts/2", 10, 40), ended("pts/3", 50, 60), by(70, ended("pts/4", 24, 40)),
		kept("pts/2", 11), kept("pts/2", 45), by(70, kept("pts/4", 20)), by(71, kept("pts/4", 28))}
	r := run(t, h)
	var lines []string
	for _, l := range r.Users[0].Logins {
		lines = append(lines, fmt.Sprintf("%s at %s ended %t", l.Line, l.Time.Sub(loginTime), !l.Ended.IsZero()))
	}
	if d := cmp.Diff([]string{"pts/2 at 10s ended true", "pts/4 at 24s ended true", "pts/2 at 45s ended false", "pts/4 at 28s ended false"}, lines); d != "" || len(r.Previous) != 0 {
		t.Errorf("candidates %v, logins (-want +got):\n%s", r.Previous, d)
	}
}
