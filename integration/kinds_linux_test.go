package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stopd/stopd/internal/netlab/site"
)

// The hosts speak MPTCP with each other, so that the sockets that processes hold are not those that the
// segments belong to. The victim passes on what it is told to the listener that keeps it.
func TestMPTCP(t *testing.T) {
	for _, tt := range []struct {
		name         string
		from, to, at string // kinds of what the attacker and the relay connect by, and of what the victim listens on
		count        int    // MPTCP connections of b
	}{
		{"all the way", "mptcp", "mptcp", "mptcp", 2},
		{"to the stepping stone", "mptcp", "tcp", "tcp", 1},
		{"to the victim", "tcp", "mptcp", "mptcp", 1},
		{"fallen back to TCP", "tcp", "mptcp", "tcp", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				s.on(s.c, "mallory", "pass", fmt.Sprintf("%s:%d", tt.at, s.port+1), fmt.Sprintf("tcp:127.0.0.1:%d", victimPort))
				s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
				s.on(s.b, "mallory", "pass", fmt.Sprintf("mptcp:%d", s.port), fmt.Sprintf("%s:%s:%d", tt.to, s.c.Host.Addr(), s.port+1))
				tr := s.passed(tt.from)
				if n := s.multipath(); n != tt.count {
					s.t.Errorf("%d MPTCP connections, want %d", n, tt.count)
				}
				return tr
			})
		})
	}
}

// multipath counts b's MPTCP connections that have not fallen back to TCP.
func (s *stage) multipath() int {
	s.t.Helper()
	out, err := s.b.Host.Run(s.ctx, "ss", "-MniH", "state", "established")
	s.must(err)
	return strings.Count(string(out), "remote_key")
}

// onB runs a command of root's on b, also after the stage.
func (s *stage) onB(name string, args ...string) {
	s.t.Helper()
	if _, err := s.b.Host.Run(context.WithoutCancel(s.ctx), name, args...); err != nil {
		s.t.Error(err)
	}
}

// Data goes with the first segment, both to the stepping stone and on to the victim.
func TestFastOpen(t *testing.T) {
	w := theWorld(t)
	// Client and server, without the cookie that a first connection has yet to ask for.
	for _, at := range []*site.Site{w.a, w.b, w.c} {
		setFastOpen(t, at, "519")
	}
	scenario(t, "SV_REC", func(s *stage) trail {
		s.on(s.c, "mallory", "pass", fmt.Sprintf("fastopen:%d", s.port+1), fmt.Sprintf("tcp:127.0.0.1:%d", victimPort))
		s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
		s.on(s.b, "mallory", "pass", fmt.Sprintf("fastopen:%d", s.port), fmt.Sprintf("fastopen:%s:%d", s.c.Host.Addr(), s.port+1))
		return s.passed("fastopen")
	})
}

// setFastOpen sets a host's net.ipv4.tcp_fastopen until the test ends.
func setFastOpen(t *testing.T, at *site.Site, value string) {
	t.Helper()
	const key = "net.ipv4.tcp_fastopen"
	old, err := at.Host.Run(t.Context(), "sysctl", "-n", key)
	if err != nil {
		t.Fatal(err)
	}
	set := func(ctx context.Context, value string) error {
		_, err := at.Host.Run(ctx, "sysctl", "-w", key+"="+strings.TrimSpace(value))
		return err
	}
	if err := set(t.Context(), value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(context.Background(), string(old)); err != nil {
			t.Error(err)
		}
	})
}

// passed has the attacker say the word through pass on b.
func (s *stage) passed(kind string) trail {
	s.t.Helper()
	s.listening(s.port)
	s.send(s.open("pass", "-", fmt.Sprintf("%s:%s:%d", kind, s.b.Host.Addr(), s.port)), s.word)
	s.heard(s.c)
	out := s.one(s.b, "connection with the victim", func(c connection) bool {
		return s.of(s.c, c.remote.Addr()) && c.remote.Port() == s.port+1
	})
	return trail{in: s.in(), out: out, names: []string{"pass"}}
}
