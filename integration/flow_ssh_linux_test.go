package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/netlab/site"
)

// manyUsers are twenty other people with accounts on b, c and d.
const manyUsers = 20

func manyUser(i int) string { return fmt.Sprintf("user%d", i+1) }

// addMany makes the accounts of many users, and lets them, and the intruder, in from their hosts to b, and by way of b to c.
func (s *stage) addMany() {
	s.t.Helper()
	s.must(s.lab.Trust(s.ctx, "mallory", s.a.Host, s.c.Host))
	for i := range manyUsers {
		for _, at := range []*site.Site{s.b, s.c, s.d} {
			if err := at.Host.AddUser(manyUser(i), 1401+i); err != nil && !errors.Is(err, os.ErrExist) {
				s.t.Fatal(err)
			}
		}
		for _, to := range []*site.Site{s.b, s.c} {
			s.must(s.lab.Trust(s.ctx, manyUser(i), s.d.Host, to.Host))
		}
	}
}

// forward has a user log in to b, and go on to c by what sshd forwards. All of them talk on.
type forward struct {
	name string
	to   func(*stage) netip.AddrPort
	// start returns once c knows the user.
	start func(s *stage, at *site.Site, user string, port uint16)
}

var forwards = []forward{
	{"ssh -J", func(s *stage) netip.AddrPort { return netip.AddrPortFrom(s.c.Host.Addr(), 22) }, func(s *stage, at *site.Site, user string, _ uint16) {
		session := s.openAs(at, user, "ssh", "-4", "-J", "b", s.c.Host.Addr().String(), "echo at''work; while sleep 0.05; do echo x; done")
		_, err := session.Expect(s.ctx, "atwork")
		s.must(err)
	}},
	{"ssh -L", (*stage).answers, func(s *stage, at *site.Site, user string, port uint16) {
		s.openAs(at, user, "ssh", "-4", "-N", "-L", fmt.Sprintf("127.0.0.1:%d:%s", port, s.answering()), "b")
		s.must(at.Host.WaitListen(s.ctx, port))
		s.chats(at, user, "name", user, fmt.Sprintf("127.0.0.1:%d", port))
	}},
	{"ssh -D", (*stage).answers, func(s *stage, at *site.Site, user string, port uint16) {
		s.openAs(at, user, "ssh", "-4", "-N", "-D", fmt.Sprintf("127.0.0.1:%d", port), "b")
		s.must(at.Host.WaitListen(s.ctx, port))
		s.chats(at, user, "socks", s.answering(), "name", user, fmt.Sprintf("127.0.0.1:%d", port))
	}},
}

func (s *stage) answers() netip.AddrPort { return netip.MustParseAddrPort(s.answering()) }

// chats keeps a user's program talking, on one connection, until the stage ends.
func (s *stage) chats(at *site.Site, user string, args ...string) {
	s.t.Helper()
	s.openAs(at, user, append(append([]string{"chatter"}, args...), "1", "0")...)
}

// Twenty others do the same: each of them has a process of sshd's, and he alone is asked for, whoever is asked about.
func TestForwardsOfMany(t *testing.T) {
	of := 3
	if os.Getenv("STOPD_SOAK") != "" {
		of = 1 + manyUsers
	}
	for _, f := range forwards {
		t.Run(f.name, func(t *testing.T) {
			s := theWorld(t).stageFor(t, 2*stageLimit)
			s.busy = true
			s.addMany()
			s.on(s.c, "mallory", "answer", fmt.Sprint(s.port+1))
			s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
			const ports = 20000 // on the clients' hosts
			for i := range manyUsers {
				f.start(s, s.d, manyUser(i), uint16(ports+i))
			}
			f.start(s, s.a, "mallory", ports)
			to := f.to(s)
			var all, outs []connection
			s.wait("wait for the forwards", func() (bool, error) {
				var err error
				all, err = connections(s.ctx, s.b.Host)
				outs = slices.DeleteFunc(slices.Clone(all), func(c connection) bool { return c.remote != to })
				return len(outs) == manyUsers+1, err
			})
			in := s.in()
			mine := slices.IndexFunc(outs, func(c connection) bool { return share(c, in) })
			if mine < 0 {
				t.Fatalf("none of %v is a process's that has %v", outs, in)
			}
			outs[0], outs[mine] = outs[mine], outs[0]
			for i, out := range outs[:of] {
				if i > 0 { // whose it is tells the process
					in = all[slices.IndexFunc(all, func(c connection) bool { return c.local.Port() == 22 && share(c, out) })]
				}
				before := s.answered()
				r := s.asked("SV_REC", out, true)
				s.named(r, in)
				want := map[string]int{"b": 1, "d": 1}
				if i == 0 {
					want = map[string]int{"b": 1, "a": 1}
				}
				if d := cmp.Diff(want, s.since(before)); d != "" {
					t.Errorf("answers by host (-want +got):\n%s", d)
				}
				s.again = 0
			}
		})
	}
}

// share reports whether a process has both connections.
func share(a, b connection) bool {
	return a.local != b.local && slices.ContainsFunc(a.pids, func(pid int) bool { return slices.Contains(b.pids, pid) })
}
