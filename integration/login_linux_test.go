package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// auditedSSHD is the configuration of a second sshd on b, that keeps records as distributions have it: it sets the
// audit session, writes utmp and wtmp, and logs to syslog.
const auditedSSHD = `Port %d
HostKey /etc/ssh/netlab_host_key
PidFile none
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
PrintLastLog no
`

// loginProcess is a configuration of PAM for programs that let users in.
const loginProcess = "session required pam_loginuid.so\n" + permitAll

const (
	utmpPath = "/run/utmp"
	wtmpPath = "/var/log/wtmp"
	authLog  = "/var/log/auth.log"
)

// A logger keeps what programs send to syslog.
type logger struct {
	name  string
	start func(*stage)
	// source is where its records are found.
	source string
}

var loggers = []logger{
	{"journald", (*stage).journald, host.LogJournal},
	{"rsyslog", (*stage).rsyslog, authLog},
}

func (s *stage) journald() {
	s.must(s.b.Host.WriteFile("/etc/systemd/journald.conf", []byte("[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitBurst=0\n"), 0o644, "root"))
	s.onB("mkdir", "-p", "/run/log/journal", "/run/systemd/journal")
	// It looks up the control group of whoever logs something.
	s.onB("mount", "-t", "cgroup2", "cgroup", "/sys/fs/cgroup")
	s.t.Cleanup(func() {
		if _, err := s.b.Host.Run(context.Background(), "umount", "/sys/fs/cgroup"); err != nil {
			s.t.Error(err)
		}
	})
	s.daemonOnB("/lib/systemd/systemd-journald")
	s.exists("/run/systemd/journal/dev-log")
	s.onB("ln", "-sf", "/run/systemd/journal/dev-log", "/dev/log")
	s.t.Cleanup(func() { s.removeOnB("/dev/log", "/run/log/journal", "/run/systemd/journal") })
}

func (s *stage) rsyslog() {
	const config = `module(load="imuxsock")
auth,authpriv.* action(type="omfile" file="` + authLog + `" template="RSYSLOG_TraditionalFileFormat")
`
	s.must(s.b.Host.WriteFile("/etc/rsyslog-test.conf", []byte(config), 0o644, "root"))
	s.daemonOnB("rsyslogd", "-n", "-f", "/etc/rsyslog-test.conf", "-i", "/run/rsyslog-test.pid")
	s.exists("/dev/log")
	s.t.Cleanup(func() { s.removeOnB("/dev/log", authLog) })
}

func (s *stage) removeOnB(paths ...string) {
	if _, err := s.b.Host.Run(context.Background(), "rm", append([]string{"-rf"}, paths...)...); err != nil {
		s.t.Error(err)
	}
}

// audited starts the second sshd, and logs bob in by it from d.
func (s *stage) audited() {
	s.t.Helper()
	s.must(s.b.Host.WriteFile("/etc/pam.d/sshd", []byte(loginProcess), 0o644, "root"))
	for _, name := range []string{"sudo", "su"} {
		s.must(s.b.Host.WriteFile("/etc/pam.d/"+name, []byte(permitAll), 0o644, "root"))
	}
	s.must(s.b.Host.WriteFile(utmpPath, nil, 0o664, "root"))
	s.must(s.b.Host.WriteFile(wtmpPath, nil, 0o664, "root"))
	s.t.Cleanup(func() { s.removeOnB(utmpPath, wtmpPath) })
	const config = "/etc/ssh/audited_sshd_config"
	s.must(s.b.Host.WriteFile(config, fmt.Appendf(nil, auditedSSHD, s.port), 0o644, "root"))
	s.daemonOnB("/usr/sbin/sshd", "-D", "-f", config)
	s.listening(s.port)

	bob, err := netlab.Open(s.d.Host.CommandAs(s.ctx, "bob", "ssh", s.sshArgs()...))
	s.must(err)
	s.t.Cleanup(func() {
		if err := bob.Close(); err != nil {
			s.t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
		defer cancel()
		if err := netlab.WaitFor(ctx, func() (bool, error) {
			n, err := s.atWork(ctx)
			return n == s.innocents, err
		}); err != nil {
			s.t.Errorf("end bob's session: %v", err)
		}
	})
	s.must(bob.Send("nohup setsid sleep infinity & echo lo''gged in"))
	_, err = bob.Expect(s.ctx, "logged in")
	s.must(err)
}

func (s *stage) sshArgs() []string {
	return []string{"-4", "-tt", "-p", strconv.Itoa(int(s.port)), "-o", "HostKeyAlias=b", "b"}
}

// auditedShell logs the attacker in by the second sshd.
func (s *stage) auditedShell() *netlab.Session {
	s.t.Helper()
	session := s.open(append([]string{"ssh"}, s.sshArgs()...)...)
	s.send(session, "echo lo''gged in")
	_, err := session.Expect(s.ctx, "logged in")
	s.must(err)
	s.logged("Accepted publickey for mallory from ")
	return session
}

// logged waits until b's log has what sshd said.
func (s *stage) logged(what string) {
	s.t.Helper()
	s.wait("wait until "+what+"is in the log", func() (bool, error) {
		out, err := s.b.Host.Run(s.ctx, "sh", "-c", "cat "+authLog+" 2>/dev/null; journalctl --quiet --no-pager --output=cat --grep=Accepted 2>/dev/null; true")
		return strings.Contains(string(out), what), err
	})
}

// toVictim is a command line that tells the victim the word and stays.
func (s *stage) toVictim() string {
	return fmt.Sprintf("(echo %s; exec sleep infinity) | nc.traditional %s %d", s.word, s.c.Host.Addr(), victimPort)
}

// fingerprint is that of the attacker's key, as ssh-keygen(1) has it.
func (s *stage) fingerprint() string {
	s.t.Helper()
	return s.fingerprintOn(s.a)
}

// fingerprintOn is fingerprint for mallory's key on another site.
func (s *stage) fingerprintOn(on *site.Site) string {
	s.t.Helper()
	out, err := on.Host.RunAs(s.ctx, "mallory", "ssh-keygen", "-lf", "/home/mallory/.ssh/id_ed25519.pub")
	s.must(err)
	f := strings.Fields(string(out))
	if len(f) < 2 || !strings.HasPrefix(f[1], "SHA256:") {
		s.t.Fatalf("ssh-keygen -lf said %q", out)
	}
	return f[1]
}

// reported has the victim ask about its connection, and checks that the given hosts were asked and no other, and that
// nobody else is named by more than the user's word.
func (s *stage) reported(out connection, asked ...connection) report.Redeemed {
	s.t.Helper()
	return s.reportedOf(s.a, out, asked...)
}

// reportedOf is reported where the commands come from another site.
func (s *stage) reportedOf(from *site.Site, out connection, asked ...connection) report.Redeemed {
	s.t.Helper()
	var r report.Redeemed
	s.wait("a report for which the journal was read in time", func() (bool, error) {
		var err error
		_, r, err = s.b.Traced(s.ctx, s.request(s.reached(out), "SV_REC", out))
		return !slices.ContainsFunc(r.Report.Gaps, func(g host.Gap) bool { return g.What == "journal" }), err
	})
	var want []netip.AddrPort
	for _, c := range asked {
		want = append(want, c.remote)
	}
	var got []netip.AddrPort
	for _, e := range askedOf(r) {
		got = append(got, e.Remote)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		s.t.Errorf("asked (-want +got):\n%s", d)
	}
	for _, p := range r.Report.Previous {
		if p.Corroborated && !s.of(from, p.Remote.Addr()) {
			s.t.Errorf("%s is named for %v: it has nothing to do with it", p.Remote, p.Reasons)
		}
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(report.Text(r.Report))
		}
	})
	return r
}

// reached is the site of the victim that a connection leads to.
func (s *stage) reached(out connection) *site.Site {
	if s.of(s.g, out.remote.Addr()) {
		return s.g
	}
	return s.c
}

// loginOf returns the login of the process that holds the asked connection.
func loginOf(t *testing.T, r report.Redeemed) host.Login {
	t.Helper()
	for _, p := range r.Report.Processes {
		if slices.Contains(r.Report.Connection.Owners, p.PID) {
			if p.Login == nil {
				return host.Login{}
			}
			return *p.Login
		}
	}
	t.Fatal("the report has no owner")
	return host.Login{}
}

func reasonsOf(r report.Redeemed, remote netip.AddrPort) []string {
	for _, p := range r.Report.Previous {
		if p.Remote == remote {
			return p.Reasons
		}
	}
	return nil
}

// The intruder is at his shell. A line that he had logged in his own session's name changes nothing.
func TestLoginRecord(t *testing.T) {
	for _, l := range loggers {
		t.Run(l.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			l.start(s)
			s.audited()
			session := s.auditedShell()
			in := s.in()
			// A line that is written as the session begins could be sshd's as well, as far as its time tells.
			s.send(session, fmt.Sprintf("until [ $(($(date +%%s) - $(stat -c %%Y /proc/$$))) -gt 3 ]; do sleep 0.1; done; logger -p auth.info -t sshd --id=%d 'Accepted publickey for mallory from %s port %d ssh2: ED25519 SHA256:forged'",
				in.pids[0], in.remote.Addr(), in.remote.Port()), "echo fo''rged")
			_, err := session.Expect(s.ctx, "forged")
			s.must(err)
			s.send(session, s.toVictim())
			s.heard(s.c)
			r := s.reported(s.out(s.b, s.c), in)
			got := loginOf(t, r)
			want := host.Login{Source: host.LoginSSHD, Remote: in.remote, Key: s.fingerprint(), Log: l.source}
			got.Time, got.Line = want.Time, ""
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Errorf("login (-want +got):\n%s", d)
			}
			if d := cmp.Diff([]string{trace.ReasonInbound, trace.ReasonAuditSession, trace.ReasonSSHConnection, trace.ReasonUtmp}, sorted(reasonsOf(r, in.remote))); d != "" {
				t.Errorf("reasons (-want +got):\n%s", d)
			}
			i := slices.IndexFunc(r.Report.Users, func(u trace.User) bool { return u.Name == "mallory" })
			if i < 0 || len(r.Report.Users[i].Logins) != 1 || r.Report.Users[i].Logins[0].Address != in.remote.Addr() {
				t.Errorf("users are %+v", r.Report.Users)
			}
		})
	}
}

// sorted puts reasons into the order in which tests name them.
func sorted(reasons []string) []string {
	order := []string{trace.ReasonInbound, trace.ReasonAuditSession, trace.ReasonSSHConnection, trace.ReasonUtmp}
	slices.SortFunc(reasons, func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	return reasons
}

// The intruder is still logged in, and what he has started descends from nobody any more. It may be another user's.
func TestLoginLeftBehind(t *testing.T) {
	for _, tt := range []struct{ name, command string }{
		{"setsid", "setsid -f sh -c '%s' >/dev/null 2>&1 </dev/null"},
		{"sudo", "sudo -u www setsid -f sh -c '%s' >/dev/null 2>&1 </dev/null"},
		{"sudo and su", `sudo su -s /bin/sh www -c "setsid -f sh -c '%s' >/dev/null 2>&1 </dev/null"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			s.journald()
			s.audited()
			s.must(s.b.Host.WriteFile("/etc/sudoers.d/mallory", []byte("mallory ALL=(ALL) NOPASSWD: ALL\n"), 0o440, "root"))
			s.t.Cleanup(func() { s.removeOnB("/etc/sudoers.d/mallory") })
			session := s.auditedShell()
			s.send(session, fmt.Sprintf(tt.command, s.toVictim())+"; echo do''ne") // in one line: sudo drops what is typed meanwhile
			_, err := session.Expect(s.ctx, "done")
			s.must(err)
			s.heard(s.c)
			in := s.in()
			r := s.reported(s.out(s.b, s.c), in)
			if got := loginOf(t, r); got.Source != host.LoginSSHD || got.Remote != in.remote || got.Key != s.fingerprint() {
				t.Errorf("login is %+v", got)
			}
		})
	}
}

// The intruder has logged out. The system keeps which session it was, and where logind keeps whose, his host is
// known, but no connection to ask about. Logind's file is replayed, with a scope that no process is in: the audit session
// alone leads to it.
func TestLoginLoggedOut(t *testing.T) {
	for _, logind := range []bool{false, true} {
		t.Run(fmt.Sprintf("logind %t", logind), func(t *testing.T) {
			s := theWorld(t).stage(t)
			s.unremembered()
			s.journald()
			s.audited()
			session := s.auditedShell()
			in := s.in()
			audit, err := s.b.Host.ReadFile(fmt.Sprintf("/proc/%d/sessionid", in.pids[0]))
			s.must(err)
			if logind {
				leader := slices.Min(in.pids) // the part of sshd that is root's began the other
				file := fmt.Sprintf("UID=1001\nUSER=mallory\nSCOPE=session-x.scope\nREMOTE=1\nREMOTE_HOST=%s\nLEADER=%d\nAUDIT=%s\nREALTIME=%d\n",
					in.remote.Addr(), leader, strings.TrimSpace(string(audit)), s.startOf(leader)+1e6)
				s.must(s.b.Host.WriteFile("/run/systemd/sessions/7", []byte(file), 0o644, "root"))
				s.t.Cleanup(func() { s.removeOnB("/run/systemd/sessions") })
			}
			s.send(session, "nohup setsid sh -c '"+s.toVictim()+"' >/dev/null 2>&1 </dev/null & sleep 0.1; exit")
			s.must(ignoreExit(session.Wait(s.ctx)))
			s.heard(s.c)
			r := s.reported(s.out(s.b, s.c))
			got := loginOf(t, r)
			if !logind {
				if !slices.ContainsFunc(r.Report.Gaps, func(g host.Gap) bool { return g.What == "login" }) {
					t.Errorf("no gap says that the login is not known: %+v", r.Report.Gaps)
				}
				return
			}
			if got.Source != host.LoginSSHD || got.Remote != in.remote || got.Key != s.fingerprint() {
				t.Errorf("login is %+v", got)
			}
			i := slices.IndexFunc(r.Report.Previous, func(p trace.Previous) bool { return p.Remote == in.remote })
			if i < 0 || !r.Report.Previous[i].Corroborated || r.Traceback[i].Asked {
				t.Errorf("the previous hosts are %+v", r.Report.Previous)
			}
		})
	}
}

// startOf returns when a process of b started, in microseconds. Its directory in /proc has the time when somebody first looked there.
func (s *stage) startOf(pid int) int64 {
	s.t.Helper()
	out, err := s.b.Host.Run(s.ctx, "awk", "$1 == \"btime\" {print $2} FILENAME != \"/proc/stat\" {print $22}", "/proc/stat", fmt.Sprintf("/proc/%d/stat", pid))
	s.must(err)
	var boot, ticks int64
	_, err = fmt.Sscan(string(out), &boot, &ticks)
	s.must(err)
	return boot*1e6 + ticks*1e4 // USER_HZ is 100
}

// What a user can write himself accuses nobody: the environment, a line of a log, a name in utmp.
func TestForgedLogin(t *testing.T) {
	for _, l := range loggers {
		t.Run(l.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			l.start(s)
			s.audited()
			innocent := s.d.Host.Addr()
			s.script(`export SSH_CONNECTION="%[1]s 4444 %[2]s 22" SSH_CLIENT="%[1]s 4444 22"
logger -p auth.info -t sshd --id=$$ "Accepted publickey for mallory from %[1]s port 4444 ssh2: ED25519 SHA256:forged"
%[3]s`, innocent, s.b.Host.Addr(), s.toVictim())
			s.heard(s.c)
			r := s.reported(s.out(s.b, s.c))
			if got := loginOf(t, r); got.Source != host.LoginEnvironment || got.Key != "" {
				t.Errorf("login is %+v", got)
			}
			if d := cmp.Diff([]string{trace.ReasonSSHConnection}, reasonsOf(r, netip.AddrPortFrom(innocent, 4444))); d != "" {
				t.Errorf("reasons (-want +got):\n%s", d)
			}
		})
	}
}
