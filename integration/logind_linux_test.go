package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A visit is a login to b, which its sshd has registered with logind.
type visit struct {
	user    string
	from    *site.Site
	shell   *netlab.Session
	session string         // logind's id
	remote  netip.AddrPort // the user's end of the connection
}

// visit logs a user in to b.
func (s *stage) visit(user string, from *site.Site) visit {
	s.t.Helper()
	s.must(s.lab.Trust(s.ctx, user, from.Host, s.b.Host))
	shell, err := netlab.Open(from.Host.CommandAs(s.ctx, user, "ssh", "-4", "-tt", "b"))
	s.must(err)
	s.t.Cleanup(func() { _ = shell.Close() })
	s.send(shell, `echo lo''gged in: $XDG_SESSION_ID $SSH_CONNECTION :`)
	_, err = shell.Expect(s.ctx, "logged in: ")
	s.must(err)
	said, err := shell.Expect(s.ctx, " :")
	s.must(err)
	f := strings.Fields(said)
	if len(f) != 6 {
		s.t.Fatalf("the session of %s said %q", user, said)
	}
	remote, err := netip.ParseAddrPort(f[1] + ":" + f[2])
	s.must(err)
	s.logged(fmt.Sprintf("Accepted publickey for %s from %s port %d ", user, remote.Addr(), remote.Port()))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
		defer cancel()
		_ = s.b.Host.Command(ctx, "loginctl", "terminate-session", f[0]).Run() // it may have ended
		if err := netlab.WaitFor(ctx, func() (bool, error) {
			n, err := s.atWork(ctx)
			return n == s.innocents, err
		}); err != nil {
			s.t.Errorf("end the session of %s: %v", user, err)
		}
	})
	return visit{user, from, shell, f[0], remote}
}

// leave has the user log out, and waits until logind knows, which keeps the session while a process is left, and until sshd has ended, which
// takes him out of utmp last.
func (s *stage) leave(v visit) {
	s.t.Helper()
	leader := s.sessionField(v, "LEADER")
	s.send(v.shell, "exit")
	s.must(ignoreExit(v.shell.Wait(s.ctx)))
	s.wait("wait until logind has session "+v.session+" closing", func() (bool, error) {
		b, err := s.b.Host.ReadFile("/run/systemd/sessions/" + v.session)
		_, gone := os.Stat(s.b.Host.Path("/proc/" + leader))
		return strings.Contains(string(b), "\nSTATE=closing\n") && gone != nil, err
	})
}

// innocentsLeave has bob, who has another session, leave programs behind as well.
func (s *stage) innocentsLeave() {
	s.t.Helper()
	v := s.visit("bob", s.d)
	s.send(v.shell, "tmux new-session -d", "nohup setsid sleep infinity >/dev/null 2>&1 </dev/null & echo le''ft")
	_, err := v.shell.Expect(s.ctx, "left")
	s.must(err)
	s.leave(v)
}

// leaves is a command line that leaves one process behind, which has told a victim the word.
func (s *stage) leaves(to *site.Site) string {
	return fmt.Sprintf(`nohup setsid bash -c "exec 3<>/dev/tcp/%s/%d; echo %s >&3; exec sleep infinity" >/dev/null 2>&1 </dev/null &`,
		to.Host.Addr(), victimPort, s.word)
}

// left waits for the connection of what was left behind, and ends it after the stage, whoever's it is.
func (s *stage) left(to *site.Site) connection {
	s.t.Helper()
	s.heard(to)
	out := s.out(s.b, to)
	s.t.Cleanup(func() {
		// One that has ended since is no error.
		_ = s.b.Host.Command(context.Background(), "kill", append([]string{"-KILL"}, decimal(out.pids)...)...).Run()
	})
	return out
}

// recorded checks that a report names the host of a visit by what the system has kept of it, and nobody is asked.
func (s *stage) recorded(r report.Redeemed, out connection, v visit) {
	s.t.Helper()
	var named []trace.Previous
	for _, p := range r.Report.Previous {
		if p.Corroborated {
			named = append(named, p)
		}
	}
	if len(named) != 1 || named[0].Remote != v.remote || !slices.Contains(named[0].Reasons, trace.ReasonAuditSession) {
		s.t.Errorf("named are %+v, want %s alone", named, v.remote)
	}
	got := loginOf(s.t, r)
	want := host.Login{Source: host.LoginSSHD, Remote: v.remote, Key: s.fingerprintOn(v.from), Log: host.LogJournal}
	got.Time, got.Line = want.Time, ""
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		s.t.Errorf("login (-want +got):\n%s", d)
	}
	for _, u := range r.Report.Users {
		for _, l := range u.Logins {
			if u.Name == v.user && l.Address == v.remote.Addr() && l.Ended.IsZero() {
				s.t.Errorf("%s has logged out, and is listed with %+v", u.Name, l)
			}
		}
	}
	path := fmt.Sprintf("b (%s) -> %s\n", out.local.Addr(), out.remote.Addr())
	s.draws([]report.Redeemed{r}, path, fmt.Sprintf("not asked %s (its connection is not known)", v.remote))
}

// The intruder has logged out, and what he started goes on. Others have left something behind as well.
func TestLogindLoggedOut(t *testing.T) {
	for _, tt := range []struct {
		name string
		// become are what the intruder says to become somebody else, and the prompt that he waits for.
		become [][2]string
		linger bool
	}{
		{name: "nohup and setsid"},
		{name: "sudo -i", become: [][2]string{{"exec sudo -i", "# "}}},
		{name: "sudo -i and su -", become: [][2]string{{"exec sudo -i", "# "}, {"exec su - www", "$ "}}},
		{name: "lingering", linger: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theSystemdWorld(t).stage(t)
			s.unremembered()
			s.innocentsLeave()
			if tt.linger {
				s.onB("loginctl", "enable-linger", "mallory")
				s.t.Cleanup(func() { s.onB("loginctl", "disable-linger", "mallory") })
			}
			v := s.visit("mallory", s.a)
			for _, b := range tt.become {
				s.send(v.shell, b[0])
				_, err := v.shell.Expect(s.ctx, b[1])
				s.must(err)
			}
			s.send(v.shell, s.leaves(s.c))
			out := s.left(s.c)
			s.leave(v)
			s.recorded(s.reported(out), out, v)
		})
	}
}

// Two come as the same user, with keys of their own, and each is told by the session that logind put his processes
// into.
func TestLogindSameUser(t *testing.T) {
	for _, stays := range []bool{true, false} {
		t.Run(fmt.Sprintf("the other stays %t", stays), func(t *testing.T) {
			s := theSystemdWorld(t).stage(t)
			s.unremembered()
			d := s.visit("mallory", s.d)
			a := s.visit("mallory", s.a)
			s.send(d.shell, s.leaves(s.g))
			ofD := s.left(s.g)
			s.send(a.shell, s.leaves(s.c))
			ofA := s.left(s.c)
			s.leave(a)
			if stays {
				in := s.one(s.b, "connection of d's session", func(c connection) bool { return c.remote == d.remote })
				s.reportedOf(s.d, ofD, in)
			} else {
				s.leave(d)
				s.recorded(s.reportedOf(s.d, ofD), ofD, d)
			}
			s.recorded(s.reported(ofA), ofA, a)
		})
	}
}

// What a user can write himself accuses nobody: lines of the journal in the name of whoever let him in, a control
// group with the name of another's session, the environment.
func TestLogindForged(t *testing.T) {
	// lines say in the name of one process of sshd that it let mallory in from an innocent's host.
	lines := func(s *stage, v visit, as string) string {
		pid := s.sessionField(v, "LEADER")
		line := fmt.Sprintf("Accepted publickey for mallory from %s port 4444 ssh2: ED25519 SHA256:forged", s.d.Host.Addr())
		return fmt.Sprintf("logger -p auth.info -t 'sshd[%[1]s]' '%[2]s'; logger -p auth.info -t sshd --id=%[1]s '%[2]s'; echo '%[2]s' | systemd-cat -t %[3]s; echo '%[2]s' | systemd-cat -t 'sshd[%[1]s]'; ",
			pid, line, as)
	}
	environment := func(s *stage) string {
		return fmt.Sprintf(`export SSH_CONNECTION="%[1]s 4444 %[2]s 22" SSH_CLIENT="%[1]s 4444 22"; `, s.d.Host.Addr(), s.b.Host.Addr())
	}
	written := func(s *stage, v visit) {
		s.send(v.shell, "echo wri''tten")
		_, err := v.shell.Expect(s.ctx, "written")
		s.must(err)
		s.wait("wait for the journal to have the forged lines", func() (bool, error) {
			out, err := s.b.Host.Run(s.ctx, "journalctl", "--quiet", "--no-pager", "--boot", "--output=cat", "--grep=SHA256:forged", "_UID=1001")
			return strings.Count(string(out), "forged") >= 4, ignoreExit(err)
		})
	}
	theirs := func(s *stage) visit {
		v := s.visit("bob", s.d)
		s.send(v.shell, "nohup setsid sleep infinity >/dev/null 2>&1 </dev/null &")
		s.leave(v)
		return v
	}

	t.Run("in his own session", func(t *testing.T) {
		s := theSystemdWorld(t).stage(t)
		s.unremembered()
		theirs(s)
		v := s.visit("mallory", s.a)
		s.send(v.shell, environment(s)+lines(s, v, "sshd"), s.leaves(s.c))
		out := s.left(s.c)
		written(s, v)
		s.leave(v)
		r := s.reported(out)
		s.recorded(r, out, v)
	})
	for _, whose := range []string{"an open session", "a closing session", "no session"} {
		t.Run("in a group named as "+whose, func(t *testing.T) {
			s := theSystemdWorld(t).stage(t)
			s.unremembered()
			other := "1"
			switch whose {
			case "an open session":
				other = s.visit("bob", s.d).session
			case "a closing session":
				other = theirs(s).session
			}
			v := s.visit("mallory", s.a)
			// His service manager gives him a group to make others in.
			s.send(v.shell, environment(s)+lines(s, v, "sshd")+fmt.Sprintf(
				`systemd-run --user --scope --quiet -p Delegate=yes bash -c 'g=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); mkdir -p $g/session-%[1]s.scope $g/user.slice/user-1101.slice/session-%[1]s.scope; echo $$ >$g/user.slice/user-1101.slice/session-%[1]s.scope/cgroup.procs; %[2]s'`,
				other, s.leaves(s.c)))
			out := s.left(s.c)
			written(s, v)
			group, err := s.b.Host.ReadFile(fmt.Sprintf("/proc/%d/cgroup", out.pids[0]))
			s.must(err)
			if !strings.Contains(string(group), "/user.slice/user-1101.slice/session-"+other+".scope\n") || !strings.Contains(string(group), "user@1001.service") {
				s.t.Fatalf("the relay is in %q", group)
			}
			// Still logged in he is found by his audit session, then by nothing that is left of it.
			in := s.one(s.b, "connection of the intruder", func(c connection) bool { return c.remote == v.remote })
			s.accusesNobody(s.reported(out, in))
			s.send(v.shell, "exit")
			s.must(ignoreExit(v.shell.Wait(s.ctx)))
			s.wait("wait for the end of session "+v.session, func() (bool, error) {
				_, err := s.b.Host.ReadFile("/run/systemd/sessions/" + v.session)
				return err != nil, ignoreMissing(err)
			})
			r := s.reported(out)
			s.accusesNobody(r)
			if !hasGap(r.Report.Gaps, "who let the user of its audit session in is not there any more") {
				s.t.Errorf("no gap says that the login is not known: %v", r.Report.Gaps)
			}
		})
	}
}

// accusesNobody checks that the host of an innocent is named by the user's word alone.
func (s *stage) accusesNobody(r report.Redeemed) {
	s.t.Helper()
	for _, p := range r.Report.Previous {
		if s.of(s.d, p.Remote.Addr()) && (p.Corroborated || !slices.Equal(p.Reasons, []string{trace.ReasonSSHConnection})) {
			s.t.Errorf("%s is named for %v, corroborated %t", p.Remote, p.Reasons, p.Corroborated)
		}
	}
	for _, p := range r.Report.Processes {
		if p.Login != nil && p.Login.Key == "SHA256:forged" {
			s.t.Errorf("process %d has the login %+v", p.PID, *p.Login)
		}
	}
}

// sessionField is a value of logind's file of a session.
func (s *stage) sessionField(v visit, key string) string {
	s.t.Helper()
	b, err := s.b.Host.ReadFile("/run/systemd/sessions/" + v.session)
	s.must(err)
	_, after, _ := strings.Cut(string(b), "\n"+key+"=")
	value, _, _ := strings.Cut(after, "\n")
	return value
}
