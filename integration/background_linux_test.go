package integration

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// permitAll is a configuration of PAM that lets everybody in.
const permitAll = "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so\n"

// relayOf is a command line of an intruder's that waits for the attacker.
func (s *stage) relayOf() string {
	return fmt.Sprintf("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
}

// The intruder has left something behind to be started by others, or to go on without him.
func TestLeftBehind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*stage)
		names []string
	}{
		{"cron", func(s *stage) {
			s.must(s.b.Host.WriteFile("/etc/pam.d/cron", []byte(permitAll), 0o644, "root"))
			s.must(s.b.Host.WriteFile("/var/spool/cron/crontabs/mallory", []byte("@reboot "+s.relayOf()+"\n"), 0o600, "mallory"))
			// What cron takes to mean that the host has been up before.
			s.onB("rm", "-f", "/run/crond.reboot")
			s.daemonOnB("cron", "-f")
		}, []string{"cron", "cron", "sh"}},
		{"at", func(s *stage) {
			for _, service := range []string{"atd", "at"} {
				s.must(s.b.Host.WriteFile("/etc/pam.d/"+service, []byte(permitAll), 0o644, "root"))
			}
			s.must(s.b.Host.WriteFile("/var/spool/cron/atjobs/.SEQ", []byte("0\n"), 0o600, "daemon")) // as the package's postinst does
			_, err := s.b.Host.RunAs(s.ctx, "mallory", "sh", "-c", "echo '"+s.relayOf()+"' | at now")
			s.must(err)
			// It looks once as it starts, and where it is told of a job before it sleeps, again in an hour.
			s.daemonOnB("atd", "-f")
		}, []string{"atd", "sh"}},
		{"nohup", func(s *stage) {
			session := s.shell()
			s.send(session, "nohup sh -c '"+s.relayOf()+"' >/dev/null 2>&1 &", "exit")
			s.must(session.Wait(s.ctx))
			s.loggedOut()
		}, []string{"sh"}},
		{"setsid", func(s *stage) {
			session := s.shell()
			s.send(session, "setsid -f sh -c '"+s.relayOf()+"' >/dev/null 2>&1 </dev/null", "exit")
			s.must(session.Wait(s.ctx))
			s.loggedOut()
		}, []string{"sh"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				tt.start(s)
				s.connect(s.port)
				return s.through(append(tt.names, "nc.traditional", "nc.traditional")...)
			})
		})
	}
}

// loggedOut waits until sshd has noticed that the attacker has logged out of b.
func (s *stage) loggedOut() {
	s.t.Helper()
	s.wait("wait for the end of the intruder's session", func() (bool, error) {
		out, err := s.b.Host.Run(s.ctx, "pgrep", "-U", "mallory", "-x", "sshd")
		return len(out) == 0, ignoreExit(err)
	})
}

// daemonOnB starts a daemon of root's on b until the stage ends.
func (s *stage) daemonOnB(name string, args ...string) {
	s.t.Helper()
	d := s.on(s.b, "root", name, args...)
	s.t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
}

var moshConnect = regexp.MustCompile(`MOSH CONNECT (\d+) (\S+)`)

// A mosh server has no connection with its client: a datagram's sender is known to the program alone. What
// names the attacker's host is the environment of the login that started the server, and that is the user's
// word, on which nobody is asked.
func TestMosh(t *testing.T) {
	s := theWorld(t).stage(t)
	s.unremembered()
	out, err := s.a.Host.RunAs(s.ctx, "mallory", "ssh", "-4", "-tt", "b", "mosh-server new -l LC_ALL=C.UTF-8")
	s.must(err)
	s.loggedOut()
	m := moshConnect.FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("mosh-server said %q", out)
	}
	session := s.open("script", "-qfc", fmt.Sprintf("stty rows 24 cols 80; MOSH_KEY=%s TERM=xterm mosh-client %s %s", m[2], s.b.Host.Addr(), m[1]), "/dev/null")
	s.send(session, fmt.Sprintf("exec nc.traditional %s %d", s.c.Host.Addr(), victimPort))
	asked := s.out(s.b, s.c)
	s.send(session, s.word)
	s.heard(s.c)
	before := s.answered()
	r := s.asked("SV_REC", asked, true)
	s.inBetween(r.Report, trail{out: asked, names: []string{"mosh-server", "nc.traditional"}})
	if d := cmp.Diff(map[string]int{"b": 1}, s.since(before)); d != "" {
		t.Errorf("answers by host (-want +got):\n%s", d)
	}
	for _, p := range r.Report.Previous {
		if p.Corroborated || !s.of(s.a, p.Remote.Addr()) {
			t.Errorf("%v is named for %v, corroborated %t", p.Remote, p.Reasons, p.Corroborated)
		}
	}
	if len(r.Report.Previous) != 1 || len(r.Traceback) != 1 || r.Traceback[0].Asked || !strings.Contains(r.Traceback[0].Error, "the user's own word") {
		t.Errorf("the previous hosts are %v, and of them %+v", r.Report.Previous, r.Traceback)
	}
}
