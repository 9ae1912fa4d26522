package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// Two processes of the intruder's are joined by what only a close look at them shows. Somebody else's are as well, for a
// client of theirs.
func TestJoined(t *testing.T) {
	for _, kind := range []string{"own", "none", "ended", "ring", "lite", "self", "heard"} {
		t.Run(kind, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				s.joinedBeside(kind)
				d := s.on(s.b, "mallory", "join", kind, fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
				s.connect(s.port)
				return s.throughJoined(d)
			})
		})
	}
}

// Two processes of the intruder's hand both connections to each other all the time, so that no look finds them where the one
// before did.
func TestHop(t *testing.T) {
	s := theWorld(t).stage(t)
	s.busy = true
	s.joinedBeside("hop")
	d := s.on(s.b, "mallory", "join", "hop", fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
	s.connect(s.port)
	tr := s.throughJoined(d)
	// Each look may be unlucky. None may name another host.
	s.wait("trace the connection back", func() (bool, error) {
		_, r, err := s.b.Traced(s.ctx, s.request(s.c, "SV_REC", tr.out))
		if err != nil || len(r.Report.Previous) == 0 {
			return false, err
		}
		s.named(r, tr.in)
		return true, nil
	})
}

// The connection with the attacker is on its way to the process that sent it but for moments. The kernel does not tell what is on
// its way, but that something is, and which connections nobody has a descriptor of.
func TestParked(t *testing.T) {
	s := theWorld(t).stage(t)
	s.unremembered() // else that its owner has held it is
	s.busy = true
	s.joinedBeside("park")
	d := s.on(s.b, "mallory", "join", "park", fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
	s.connect(s.port)
	tr := s.throughJoined(d)
	want := fmt.Sprintf("no process has a descriptor of the connection of %s with %s", tr.in.local, tr.in.remote)
	s.wait("ask while the connection is on its way", func() (bool, error) {
		_, r, err := s.b.Traced(s.ctx, s.request(s.c, "SV_REC", tr.out))
		if err != nil {
			return false, err
		}
		if len(r.Report.Previous) > 0 { // it was not
			s.named(r, tr.in)
			return false, nil
		}
		for _, g := range r.Report.Gaps {
			if strings.HasPrefix(g.Why, "no process has a descriptor") && !strings.HasPrefix(g.Why, want) {
				t.Errorf("gap of another's connection: %v", g)
			}
		}
		return slices.ContainsFunc(r.Report.Gaps, func(g host.Gap) bool { return g.PID == tr.out.pids[0] && strings.HasPrefix(g.Why, want) }), nil
	})
}

// No descriptor holds the connection with the victim: it is mapped, and was closed.
func TestMapped(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		s.joinedBeside("mapped")
		d := s.on(s.b, "mallory", "join", "mapped", fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
		s.connect(s.port)
		tr := s.throughJoined(d)
		tr.names = []string{"join", "join"}
		return tr
	})
}

// Both connections are in the table of an io_uring instance of which there is no descriptor either. The kernel tells who has it
// mapped, and not what it holds.
func TestRegisteredRing(t *testing.T) {
	s := theWorld(t).stage(t)
	s.joinedBeside("table")
	d := s.on(s.b, "mallory", "join", "table", fmt.Sprint(s.port), s.c.Host.Addr().String(), fmt.Sprint(victimPort))
	s.connect(s.port)
	tr := s.throughJoined(d)
	r := s.asked("SV_REC", tr.out, true)
	if len(r.Report.Processes) > 0 || len(r.Report.Previous) > 0 {
		t.Errorf("owners or previous hosts are invented:\n%s", report.Text(r.Report))
	}
	if !slices.ContainsFunc(r.Report.Gaps, func(g host.Gap) bool {
		return g.PID == tr.out.pids[0] && strings.HasPrefix(g.Why, "it has an io_uring instance mapped")
	}) {
		t.Errorf("gaps are %v, none of process %d", r.Report.Gaps, tr.out.pids[0])
	}
}

// joinedBeside has an innocent's processes joined by a kind of thing, and passing on what their client says.
func (s *stage) joinedBeside(kind string) {
	s.t.Helper()
	s.beside("service", "join", kind, fmt.Sprint(s.port+1), s.c.Host.Addr().String(), fmt.Sprint(innocentPort))
	s.listening(s.port + 1)
	word := fmt.Sprintf("hello-%d", s.port)
	s.on(s.d, "mallory", "clients", fmt.Sprintf("b:%d:1:%s", s.port+1, word))
	s.wait("wait for the innocents' words", func() (bool, error) {
		text, err := s.c.Host.ReadFile(received)
		return strings.Contains(string(text), word), ignoreMissing(err)
	})
}

// throughJoined is the trail of the intruder's. The program says which process is which: ss(8) does not find those that hold a
// connection in a thread, or without a descriptor.
func (s *stage) throughJoined(d *netlab.Daemon) trail {
	s.t.Helper()
	s.heard(s.c)
	tr := trail{names: []string{"join", "join", "join"}}
	s.wait("find the connections", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		for _, c := range cs {
			if s.of(s.a, c.remote.Addr()) {
				tr.in = c
			} else if s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort {
				tr.out = c
			}
		}
		return tr.in.local.IsValid() && tr.out.local.IsValid(), err
	})
	log, err := d.Log()
	s.must(err)
	var far int
	if _, err := fmt.Sscanf(log, "far %d", &far); err != nil {
		s.t.Fatalf("the program said %q: %v", log, err)
	}
	tr.out.pids = []int{far}
	return tr
}
