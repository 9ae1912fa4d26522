package integration

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// ended waits until processes on b are gone.
func (s *stage) ended(pids ...int) {
	s.t.Helper()
	s.wait(fmt.Sprintf("wait for the end of %v", pids), func() (bool, error) {
		left, err := processes(s.ctx, s.b.Host, intruders...)
		return !slices.ContainsFunc(left, func(pid int) bool { return slices.Contains(pids, pid) }), err
	})
}

// ours is the one connection of mallory's with the victim.
func (s *stage) ours() connection {
	s.t.Helper()
	s.heard(s.c)
	return s.one(s.b, "mallory's connection with the victim", func(c connection) bool {
		mine, err := processes(s.ctx, s.b.Host, "mallory")
		return err == nil && s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort && slices.Contains(mine, c.pids[0])
	})
}

// othersRelay lets others do the same at the same time, from their own host.
func (s *stage) othersRelay(n uint16, script string) {
	s.t.Helper()
	var targets []string
	for i := range n {
		port := s.port + 1 + i
		s.on(s.b, "www", "sh", "-c", fmt.Sprintf(script, port, s.c.Host.Addr(), victimPort))
		s.listening(port)
		targets = append(targets, fmt.Sprintf("b:%d:1:hello\n", port))
	}
	s.on(s.d, "mallory", "clients", targets...)
	s.wait("wait for the others' relays", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		in, out := uint16(0), uint16(0)
		for _, c := range cs {
			if s.of(s.d, c.remote.Addr()) && c.local.Port() > s.port && c.local.Port() <= s.port+n {
				in++
			}
			if s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort {
				out++
			}
		}
		return in == n && out == n, err
	})
}

// TestFetchedOver: what an intruder fetched from his own host and passed on, all of it over, leads to that host.
func TestFetchedOver(t *testing.T) {
	s := theWorld(t).stage(t)
	s.othersRelay(1, "nc.traditional -l -p %d | nc.traditional -q 0 %s %d")
	says := s.open("nc.traditional", "-l", "-p", fmt.Sprint(s.port))
	s.must(s.a.Host.WaitListen(s.ctx, s.port))
	s.script("nc.traditional %s %d </dev/null | nc.traditional -q 0 %s %d", s.a.Host.Addr(), s.port, s.c.Host.Addr(), victimPort)
	s.send(says, s.word)
	out, in := s.ours(), s.in()
	s.must(says.Close())
	s.ended(append(in.pids, out.pids...)...)
	s.clear()
	s.over()
	r := s.askedOver("SV_REC", out)
	if p := r.Report.Previous; len(p) != 1 || p[0].Remote != in.remote || p[0].Local != in.local || p[0].Direction != host.Outbound || !slices.Equal(p[0].Reasons, []string{trace.ReasonRecorded, trace.ReasonJoinedOutbound}) {
		t.Errorf("previous hosts are %+v", p)
	}
}

// TestRelaysOver has relays of several processes, among others' of the same kind, that are all over and gone when b is asked.
func TestRelaysOver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		start  func(s *stage)
		joints []host.Kind // what joined those that had the two connections
		killed bool
		beside bool // others are joined to them as well, which is listed
	}{
		{"pipe", func(s *stage) {
			s.othersRelay(2, "nc.traditional -l -p %d | nc.traditional -q 0 %s %d")
			s.script("nc.traditional -l -p %d | nc.traditional -q 0 %s %d", s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.Pipe}, false, false},
		{"pipe and FIFO", func(s *stage) {
			s.fifos("back")
			s.script("cd "+s.dir+"; nc.traditional -l -p %d <back | nc.traditional -q 0 %s %d >back", s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.Pipe, host.FIFO}, false, false},
		{"two FIFOs of two programs", func(s *stage) {
			s.fifos("there", "back")
			s.script("cd "+s.dir+"; exec nc.traditional -l -p %d <back >there", s.port)
			s.script("cd "+s.dir+"; exec nc.traditional -q 0 %s %d >back <there", s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.FIFO}, false, false},
		{"pipes through another", func(s *stage) {
			s.script("nc.traditional -l -p %d | cat | nc.traditional -q 0 %s %d", s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.Pipe}, false, false},
		{"from a group", func(s *stage) {
			s.script("{ true; nc.traditional -l -p %d; true; } | ( true; nc.traditional -q 0 %s %d; true )", s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.Pipe}, false, false},
		{"socket pairs", func(s *stage) {
			s.on(s.b, "mallory", "socat", fmt.Sprintf("EXEC:nc.traditional -l -p %d", s.port), fmt.Sprintf("EXEC:nc.traditional -q 0 %s %d", s.c.Host.Addr(), victimPort))
		}, []host.Kind{host.Unix}, false, false},
		{"pipes of another", func(s *stage) {
			s.on(s.b, "mallory", "socat", fmt.Sprintf("EXEC:nc.traditional -l -p %d,pipes", s.port), fmt.Sprintf("EXEC:nc.traditional -q 0 %s %d,pipes", s.c.Host.Addr(), victimPort))
		}, []host.Kind{host.Pipe}, false, false},
		{"terminals", func(s *stage) {
			s.on(s.b, "mallory", "socat", fmt.Sprintf("EXEC:nc.traditional -l -p %d,pty,raw,echo=0", s.port), fmt.Sprintf("EXEC:nc.traditional -q 0 %s %d,pty,raw,echo=0", s.c.Host.Addr(), victimPort))
		}, []host.Kind{host.PTY}, false, false},
		{"UNIX socket", func(s *stage) {
			s.on(s.b, "mallory", "socat", "-u", "UNIX-LISTEN:"+s.dir+"/relay", fmt.Sprintf("TCP:%s:%d", s.c.Host.Addr(), victimPort))
			s.exists(s.dir + "/relay")
			s.on(s.b, "mallory", "socat", "-u", fmt.Sprintf("TCP-LISTEN:%d", s.port), "UNIX-CONNECT:"+s.dir+"/relay")
		}, []host.Kind{host.Unix}, true, false},
		{"connection of b with itself", func(s *stage) {
			relay := "socat TCP-LISTEN:%[1]d TCP:127.0.0.1:$((%[1]d+20000)),forever,interval=0.05 & exec socat TCP-LISTEN:$((%[1]d+20000)),bind=127.0.0.1 TCP:%[2]s:%[3]d"
			s.othersRelay(2, relay)
			s.script(relay, s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.TCP}, false, false},
		{"connections of b with itself, through services that go on", func(s *stage) {
			relay := "socat TCP-LISTEN:%[1]d,fork TCP:127.0.0.1:$((%[1]d+20000)),forever,interval=0.05 & exec socat TCP-LISTEN:$((%[1]d+20000)),fork,bind=127.0.0.1 TCP:%[2]s:%[3]d"
			s.othersRelay(2, relay)
			s.script(relay, s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.TCP}, false, false},
		{"beside a log that others write", func(s *stage) {
			s.on(s.b, "www", "sh", "-c", fmt.Sprintf("exec nc.traditional -l -p %d >%s", s.port+1, logFIFO))
			s.listening(s.port + 1)
			s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:hello\n", s.port+1))
			s.one(s.b, "connection of the other who writes", func(c connection) bool { return s.of(s.d, c.remote.Addr()) && c.local.Port() == s.port+1 })
			s.script("exec 9<>"+logFIFO+"; nc.traditional -l -p %d | nc.traditional -q 0 %s %d", s.port, s.c.Host.Addr(), victimPort)
		}, []host.Kind{host.Pipe}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			tt.start(s)
			session := s.connect(s.port)
			out, in := s.ours(), s.in()
			if slices.Equal(in.pids, out.pids) {
				t.Fatalf("%v hold both connections", in.pids)
			}
			if !tt.killed {
				s.must(session.Close())
				s.ended(append(in.pids, out.pids...)...)
			}
			s.clear()
			s.over()

			before := s.answered()
			r := s.askedOver("SV_REC", out)
			s.came(r, in)
			var kinds []host.Kind
			for _, c := range r.Report.Channels {
				if c.Followed && !slices.Contains(kinds, c.Kind) {
					kinds = append(kinds, c.Kind)
				}
			}
			for _, k := range tt.joints {
				if !slices.Contains(kinds, k) {
					t.Errorf("no %s is followed:\n%s", k, report.Text(r.Report))
				}
			}
			if !slices.ContainsFunc(r.Report.Processes, func(p trace.Process) bool { return slices.Contains(in.pids, p.PID) && p.Exited != nil }) {
				t.Errorf("none of %v, who had the connection with the attacker, is in\n%s", in.pids, report.Text(r.Report))
			}
			for _, p := range r.Report.Processes {
				if !tt.beside && (p.RUID != nil && slices.Contains(innocents, int(*p.RUID)) || p.RUser == "www") {
					t.Errorf("process %d %q is an innocent's", p.PID, p.Name)
				}
			}
			if tt.beside && !slices.ContainsFunc(r.Report.Processes, func(p trace.Process) bool { return p.RUser == "www" }) {
				t.Errorf("the others are not listed:\n%s", report.Text(r.Report))
			}
			if d := cmp.Diff(map[string]int{"a": 1, "b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
		})
	}
}

// TestRelayOverLoginOpen: the login that began a relay is open still, or over as well; it is named beside the relay's own connection.
func TestRelayOverLoginOpen(t *testing.T) {
	for _, open := range []bool{true, false} {
		t.Run(map[bool]string{true: "open", false: "over"}[open], func(t *testing.T) {
			s := theWorld(t).stage(t)
			s.othersRelay(1, "nc.traditional -l -p %d | nc.traditional -q 0 %s %d")
			session := s.shell()
			login := s.in()
			s.send(session, fmt.Sprintf("nc.traditional -l -p %d | nc.traditional -q 0 %s %d", s.port, s.c.Host.Addr(), victimPort))
			client := s.connect(s.port)
			out := s.ours()
			in := s.one(s.b, "connection of the relay", func(c connection) bool { return s.of(s.a, c.remote.Addr()) && c.local.Port() == s.port })
			s.must(client.Close())
			s.ended(append(in.pids, out.pids...)...)
			if !open {
				s.must(session.Close())
				s.clear()
				s.over()
			}
			r := s.askedOver("SV_REC", out)
			got := map[string]string{}
			for _, p := range r.Report.Previous {
				got[p.Remote.String()] = p.Reasons[0]
			}
			want := map[string]string{login.remote.String(): trace.ReasonInbound, in.remote.String(): trace.ReasonRecorded}
			if !open {
				want[login.remote.String()] = trace.ReasonRecorded
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s\n%s", d, report.Text(r.Report))
			}
		})
	}
}
