package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// A multiplexer keeps terminals for clients that come and go.
type multiplexer struct {
	name                string
	start, join, detach string   // what is typed
	open                string   // another terminal
	left                string   // what a client says that was told to detach
	names               []string // of the processes in between
}

var multiplexers = []multiplexer{
	{
		// What comes within the same millisecond it would take for pasted, and no key for itself.
		name: "tmux", start: `TERM=xterm tmux new -s x \; set -g assume-paste-time 0`, join: "TERM=xterm tmux attach -t x", detach: "\x02d", open: "\x02c", left: "detached",
		names: []string{"tmux: server", "tmux: client", "nc.traditional", "bash", "sshd", "sshd"},
	},
	{
		name: "screen", start: "TERM=xterm SCREENDIR=$HOME/.screen screen -S x", join: "TERM=xterm SCREENDIR=$HOME/.screen screen -x x",
		detach: "\x01d", open: "\x01c", left: "detached",
		names: []string{"screen", "screen", "nc.traditional", "bash", "sshd", "sshd"},
	},
}

// run starts a multiplexer in a shell on b, and in it a program that connects to the victim.
func (m multiplexer) run(s *stage) *netlab.Session {
	s.t.Helper()
	_, err := s.b.Host.RunAs(s.ctx, "mallory", "mkdir", "-p", "-m", "0700", "/home/mallory/.screen")
	s.must(err)
	session := s.shell()
	s.send(session, m.start)
	s.inside(session)
	s.send(session, fmt.Sprintf("exec nc.traditional %s %d", s.c.Host.Addr(), victimPort))
	s.out(s.b, s.c)
	s.send(session, s.word)
	s.heard(s.c)
	return session
}

// inside waits until a shell within a multiplexer answers.
func (s *stage) inside(session *netlab.Session) {
	s.t.Helper()
	s.send(session, "echo in''side the multiplexer")
	_, err := session.Expect(s.ctx, "inside the multiplexer")
	s.must(err)
}

func TestMultiplexer(t *testing.T) {
	for _, m := range multiplexers {
		t.Run(m.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				m.run(s)
				return s.through(m.names...)
			})
		})
	}
}

// attach logs the attacker in from g, and attaches to what runs on b.
func (m multiplexer) attach(s *stage) {
	s.t.Helper()
	s.must(s.lab.Trust(s.ctx, "mallory", s.g.Host, s.b.Host))
	session := s.openOn(s.g, "ssh", "-4", "-tt", "b")
	s.send(session, "echo lo''gged in")
	_, err := session.Expect(s.ctx, "logged in")
	s.must(err)
	s.send(session, m.join)
	word := s.word
	s.word += "-again"
	s.send(session, s.word) // it waits in the terminal until the multiplexer reads
	s.heard(s.c)
	s.word = word
}

// TestMultiplexerTaken: who began a multiplexer, and had left when somebody else opened a terminal in it from another host, is not asked for what is
// done there when that one has left as well.
func TestMultiplexerTaken(t *testing.T) {
	for _, m := range multiplexers {
		t.Run(m.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			_, err := s.b.Host.RunAs(s.ctx, "mallory", "mkdir", "-p", "-m", "0700", "/home/mallory/.screen")
			s.must(err)
			leave := func(session *netlab.Session) {
				t.Helper()
				s.send(session, m.detach)
				_, err := session.Expect(s.ctx, m.left)
				s.must(err)
				s.send(session, "exit")
				s.must(ignoreExit(session.Wait(s.ctx)))
			}
			first := s.shell()
			s.send(first, m.start)
			s.inside(first)
			leave(first)

			s.must(s.lab.Trust(s.ctx, "mallory", s.g.Host, s.b.Host))
			second := s.openOn(s.g, "ssh", "-4", "-tt", "b")
			s.send(second, "echo lo''gged in")
			_, err = second.Expect(s.ctx, "logged in")
			s.must(err)
			s.send(second, m.join)
			s.inside(second)
			s.send(second, m.open)
			s.inside(second)
			s.send(second, fmt.Sprintf("exec nc.traditional %s %d", s.c.Host.Addr(), victimPort))
			out := s.out(s.b, s.c)
			s.send(second, s.word)
			s.heard(s.c)
			leave(second)
			s.askedAlone(out, nil, true)
		})
	}
}

// The session goes on in other hands, or in two at once. Only who is attached now is asked.
func TestMultiplexerAttached(t *testing.T) {
	for _, m := range multiplexers {
		for _, tt := range []struct {
			name                string
			detaches, logsOut   bool
			linked              bool
			fromFirst, fromLast bool
		}{
			{"from another host", true, true, true, false, true},
			{"from another host, still logged in on the first", true, false, true, false, true},
			{"from two hosts", false, false, true, true, true},
			{"from another host, unlinked", true, true, false, false, true},
			{"from nowhere any more", true, true, true, true, false},
		} {
			t.Run(m.name+" "+tt.name, func(t *testing.T) {
				s := theWorld(t).stage(t)
				first := m.run(s)
				out, in := s.out(s.b, s.c), s.in()
				if tt.detaches {
					s.send(first, m.detach)
					_, err := first.Expect(s.ctx, m.left)
					s.must(err)
				}
				if tt.logsOut {
					s.send(first, "exit")
					s.must(ignoreExit(first.Wait(s.ctx)))
				}
				want := map[*site.Site]connection{}
				if tt.fromFirst {
					want[s.a] = in
				}
				if tt.fromLast {
					m.attach(s)
					want[s.g] = s.one(s.b, "connection with the other host", func(c connection) bool { return s.of(s.g, c.remote.Addr()) })
				}
				if !tt.linked {
					s.unlinkOf(s.g)
				}
				r := s.askedAlone(out, want, tt.linked)
				if tt.linked && tt.fromLast && !tt.fromFirst {
					path := fmt.Sprintf("g (%s) -> b (%s) -> %s\n", s.g.Host.Addr(), out.local.Addr(), out.remote.Addr())
					s.draws([]report.Redeemed{r, s.previousToken(s.g, r)}, path, "opened")
				}
			})
		}
	}
}

// askedAlone has the victim ask b about a connection, and checks that b asked these hosts about these connections,
// and no other.
func (s *stage) askedAlone(out connection, want map[*site.Site]connection, linked bool) report.Redeemed {
	s.t.Helper()
	before := s.answered()
	r := s.asked("SV_REC", out, linked)
	var ends []stop.Ends
	answers := map[string]int{"b": 1}
	for at, c := range want {
		ends = append(ends, stop.Ends{Remote: c.remote, Local: c.local})
		if linked {
			answers[at.Host.Name] = 1
		}
	}
	order := func(a, b stop.Ends) int { return a.Remote.Compare(b.Remote) }
	got := askedOf(r)
	slices.SortFunc(ends, order)
	slices.SortFunc(got, order)
	if d := cmp.Diff(ends, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		s.t.Errorf("asked (-want +got):\n%s", d)
		s.t.Log(report.Text(r.Report))
	}
	if d := cmp.Diff(answers, s.since(before)); d != "" {
		s.t.Errorf("answers by host (-want +got):\n%s", d)
	}
	for _, p := range r.Report.Processes {
		if p.RUID != nil && slices.Contains(innocents, int(*p.RUID)) {
			s.t.Errorf("process %d %q of uid %d has nothing to do with it", p.PID, p.Args, *p.RUID)
		}
	}
	for _, a := range r.Traceback {
		if a.Asked && linked != (a.Kind == "token") {
			s.t.Errorf("%s answered %+v", a.Previous.Remote, a)
		}
	}
	for _, p := range r.Report.Previous {
		if s.of(s.d, p.Remote.Addr()) {
			s.t.Errorf("%s is named, for %v: it has nothing to do with it", p.Remote, p.Reasons)
		}
	}
	return r
}
