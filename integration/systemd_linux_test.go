package integration

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// systemdPackages are what the hosts of the world have where b runs systemd.
var systemdPackages = append(append([]string{}, packages...), netlab.SystemdPackages...)

// theSystemdWorld is theWorld with systemd as b's first process, and stopd and the innocents' services as its units.
func theSystemdWorld(t *testing.T) *world {
	t.Helper()
	return sharedSystemd.made(t, func(ctx context.Context) (*world, error) {
		w := &world{systemd: true}
		if err := w.settle(ctx, systemdPackages); err != nil {
			return nil, err
		}
		return w, w.b.Host.WriteFile("/etc/sudoers.d/mallory", []byte("mallory ALL=(ALL) NOPASSWD: ALL\n"), 0o440, "root")
	})
}

// What the service manager starts for somebody who sits at a terminal, which joins the two.
func TestSystemdRun(t *testing.T) {
	for _, tt := range []struct {
		name, start string
		names       []string
	}{
		{"user scope", "exec systemd-run --user --scope --quiet", []string{"nc.traditional", "sshd", "sshd"}},
		{"user service with a terminal", "systemd-run --user --pty --quiet", []string{"nc.traditional", "systemd-run", "bash", "sshd", "sshd"}},
		{"user service with the caller's descriptors", "systemd-run --user --pipe --quiet", []string{"nc.traditional", "bash", "sshd", "sshd"}},
		{"scope", "sudo systemd-run --scope --quiet", []string{"nc.traditional", "sudo", "bash", "sshd", "sshd"}},
		{"service with a terminal", "sudo systemd-run --pty --quiet", []string{"nc.traditional", "systemd-run", "sudo", "bash", "sshd", "sshd"}},
		{"another user's service", "sudo systemd-run --pty --quiet --uid=www", []string{"nc.traditional", "systemd-run", "sudo", "bash", "sshd", "sshd"}},
		{"machinectl shell", "sudo machinectl shell --quiet mallory@.host /usr/bin/env", []string{"nc.traditional", "machinectl", "sudo", "bash", "sshd", "sshd"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			theSystemdWorld(t).scenario(t, "SV_REC", func(s *stage) trail {
				session := s.shell()
				s.send(session, fmt.Sprintf("%s /usr/bin/nc.traditional %s %d", tt.start, s.c.Host.Addr(), victimPort))
				s.out(s.b, s.c)
				s.send(session, s.word)
				tr := s.through(tt.names...)
				tr.beside = true // the user's service manager
				return tr
			})
		})
	}
}

// What stays behind in the service manager's hands, and waits for the attacker.
func TestSystemdLeftBehind(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(*stage)
	}{
		{"user service", func(s *stage) {
			s.says("systemd-run --user --quiet sh -c '" + s.relayOf() + "'")
		}},
		{"unit of the user", func(s *stage) {
			unit := "[Service]\nExecStart=/bin/sh -c '" + s.relayOf() + "'\n"
			s.must(s.b.Host.WriteFile("/home/mallory/.config/systemd/user/relay.service", []byte(unit), 0o644, "mallory"))
			s.says("systemctl --user daemon-reload && systemctl --user start relay")
		}},
		{"lingering", func(s *stage) {
			s.says("sudo loginctl enable-linger mallory && systemd-run --user --quiet sh -c '" + s.relayOf() + "'")
			s.t.Cleanup(func() {
				if _, err := s.b.Host.Run(context.Background(), "loginctl", "disable-linger", "mallory"); err != nil {
					s.t.Error(err)
				}
			})
		}},
		{"system service", func(s *stage) {
			s.says("sudo systemd-run --quiet --collect --uid=mallory sh -c '" + s.relayOf() + "'")
		}},
		{"cron", func(s *stage) {
			s.must(s.b.Host.WriteFile("/var/spool/cron/crontabs/mallory", []byte("@reboot "+s.relayOf()+"\n"), 0o600, "mallory"))
			s.onB("rm", "-f", "/run/crond.reboot")
			s.unit("cron")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			theSystemdWorld(t).scenario(t, "SV_REC", func(s *stage) trail {
				tt.start(s)
				s.connect(s.port)
				tr := s.through("sh", "nc.traditional", "nc.traditional")
				tr.beside = true
				return tr
			})
		})
	}
}

// says has the intruder log in to b, say one command, and log out again.
func (s *stage) says(command string) {
	s.t.Helper()
	session := s.shell()
	s.send(session, command+" && echo fini''shed")
	_, err := session.Expect(s.ctx, "finished")
	s.must(err)
	s.send(session, "exit")
	s.must(ignoreExit(session.Wait(s.ctx)))
}

// unit starts a unit of b's afresh, until the stage ends.
func (s *stage) unit(name string) {
	s.t.Helper()
	s.onB("systemctl", "restart", name)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			log, _ := s.b.Host.Run(context.Background(), "journalctl", "--no-pager", "-u", name)
			s.t.Logf("%s", log)
		}
		s.onB("systemctl", "stop", name)
	})
}

// A job that the service manager was asked to start, and that nobody speaks with: who asked is not kept, and
// nobody is accused in his place.
func TestSystemdJob(t *testing.T) {
	for _, tt := range []struct{ name, start string }{
		{"user service", "systemd-run --user --quiet sh -c '%s'"},
		{"system service", "sudo systemd-run --quiet --collect --unit=job sh -c '%s'"},
		{"at", "echo '%s' | at now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theSystemdWorld(t).stage(t)
			s.must(s.b.Host.WriteFile("/var/spool/cron/atjobs/.SEQ", []byte("0\n"), 0o600, "daemon"))            // as the package's postinst does
			s.t.Cleanup(func() { _ = s.b.Host.Command(context.Background(), "systemctl", "stop", "job").Run() }) // there may be none
			s.says(fmt.Sprintf(tt.start, fmt.Sprintf("(echo %s; sleep infinity) | nc.traditional %s %d", s.word, s.c.Host.Addr(), victimPort)))
			s.unit("atd") // which looks for jobs as it starts
			out := s.out(s.b, s.c)
			s.heard(s.c)
			before := s.answered()
			r := s.asked("SV_REC", out, true)
			if d := cmp.Diff(map[string]int{"b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
			for _, p := range r.Report.Previous {
				if p.Corroborated || !s.of(s.a, p.Remote.Addr()) {
					t.Errorf("%v is named for %v, corroborated %t", p.Remote, p.Reasons, p.Corroborated)
				}
			}
			if !hasGap(r.Report.Gaps, "on whose request is not kept") {
				t.Errorf("no gap says that who asked is not kept: %v", r.Report.Gaps)
			}
		})
	}
}

// A batch job: the batch system's daemon has put it into a control group, as Slurm does. Its user has the environment say that it
// is another, submitted from elsewhere.
func TestBatchJob(t *testing.T) {
	theSystemdWorld(t).scenario(t, "SV_REC", func(s *stage) trail {
		// From a file, since systemd changes what is after a $.
		s.must(s.b.Host.WriteFile("/usr/local/bin/step", []byte(`#!/bin/sh -e
g=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/job_42/step_0/user/task_0
mkdir -p $g
echo $$ >$g/cgroup.procs
export SLURM_JOB_ID=43 SLURM_SUBMIT_HOST=d
exec setpriv --reuid mallory --regid mallory --init-groups sh -c '`+s.relayOf()+`'
`), 0o755, "root"))
		s.onB("systemd-run", "--quiet", "--collect", "systemd-run", "--scope", "--quiet", "--collect", fmt.Sprintf("--unit=b%d_slurmstepd", s.port), "--slice=system.slice",
			"--property=Delegate=yes", "/usr/local/bin/step")
		s.connect(s.port)
		tr := s.through("sh", "nc.traditional", "nc.traditional")
		_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", tr.out))
		s.must(err)
		jobs := 0
		for _, p := range r.Report.Processes {
			if p.Job == nil {
				continue
			}
			if d := cmp.Diff(host.Job{ID: "42", SubmitHost: "d", Source: host.JobCgroup, ClaimedID: "43"}, *p.Job); d != "" {
				s.t.Errorf("job of process %d (-want +got):\n%s", p.PID, d)
			}
			jobs++
		}
		if jobs != 3 {
			s.t.Errorf("%d processes are of the job:\n%s", jobs, report.Text(r.Report))
		}
		return tr
	})
}
