package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/netlab"
)

// Two processes of the intruder's are joined by what only a close look at them shows. Somebody else's are as well, for a
// client of theirs.
func TestJoined(t *testing.T) {
	for _, kind := range []string{"own", "none", "ended", "ring"} {
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
