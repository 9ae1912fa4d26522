package trace

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// TestPastInnocents: what is remembered of others is not taken for where the commands came from.
func TestPastInnocents(t *testing.T) {
	const attacker, innocent, admin = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	const mallory, service, bob = 1001, 1201, 1101
	over := func() host.Socket {
		s := came(victim.String(), 30, 50)
		s.Direction, s.Local = host.Outbound, question().Socket.Local
		return s
	}
	user := func(uid uint32, r host.Remembered) host.Remembered { return *of(uid, &r) }
	// living is the process as it is now.
	living := func(r host.Remembered, ds ...host.Descriptor) host.Process {
		p := r.Process
		for i := range ds {
			ds[i].FDs = []int{i}
		}
		p.Descriptors = ds
		return p
	}
	// began is who began the service 90, and logged in for that.
	began := []host.Remembered{user(1003, was(80, 70, 5, 20)), was(70, 1, 4, 21, came(admin, 4, 21))}
	inits := host.Process{PID: 1, StartTicks: 1, EUID: new(uint32(0))}
	adopted := func(p host.Process) host.Process { p.PPID = new(1); return p }
	open := func(remote string, from int) host.Socket {
		s := came(remote, from, 0)
		s.State = "ESTABLISHED"
		return s
	}
	for _, tt := range []struct {
		name      string
		asked     host.Socket
		processes []host.Process
		past      []host.Remembered
		previous  []string
		gaps      []string
	}{
		{name: "who began a service that two hosts were at", asked: over(),
			processes: []host.Process{inits, adopted(living(user(service, was(90, 80, 10, 0))))},
			past: append([]host.Remembered{user(service, was(100, 90, 25, 60, over())),
				user(service, was(90, 80, 10, 0, came(attacker, 24, 70), came(innocent, 22, 70)))}, began...),
			gaps: []string{"2 hosts", "203.0.113.1, 203.0.113.2"}},
		{name: "who is logged in and began a service that two hosts were at", asked: over(),
			past: []host.Remembered{user(service, was(100, 80, 25, 60, over(), came(attacker, 24, 70), came(innocent, 22, 70))),
				user(service, was(80, 70, 5, 60)), was(70, 1, 4, 70, came(admin, 4, 70))},
			gaps: []string{"2 hosts"}},
		{name: "who began a service that was told from this host", asked: over(),
			processes: []host.Process{inits, adopted(living(user(service, was(90, 80, 10, 0))))},
			past: append([]host.Remembered{user(service, was(100, 90, 25, 60, over())),
				user(service, was(90, 80, 10, 0, came("127.0.0.1:1028", 24, 70)))}, began...),
			gaps: []string{"from this host itself"}},
		{name: "another client of a service that was told from this host", asked: over(),
			past: []host.Remembered{user(service, was(100, 90, 25, 60, over())),
				user(service, was(90, 1, 10, 80, came("127.0.0.1:1028", 24, 70), came(innocent, 22, 70)))},
			gaps: []string{"from this host itself", "203.0.113.2"}},
		{name: "the asked connection itself, which nobody knows who opened", asked: func() host.Socket {
			s := question().Socket
			s.Direction, s.Cookie, s.Opened = host.UnknownDirection, 7, second(30)
			return s
		}(), processes: []host.Process{inits, func() host.Process {
			d := asked()
			d.Direction = host.UnknownDirection
			return adopted(living(user(mallory, was(100, 1, 20, 0)), d))
		}()},
			past: []host.Remembered{user(mallory, was(100, 1, 20, 0, func() host.Socket {
				s := open(victim.String(), 30)
				s.Local, s.Direction, s.Cookie = question().Socket.Local, host.UnknownDirection, 7
				return s
			}()))}},
		{name: "a login that something local came to by another port", asked: over(),
			past: []host.Remembered{user(service, was(100, 90, 25, 60, over())), user(service, was(90, 1, 10, 80, func() host.Socket {
				s := came("127.0.0.1:1028", 24, 70)
				s.Local = netip.AddrPortFrom(loopback, 9000)
				return s
			}(), came(attacker, 22, 70)))},
			previous: []string{attacker}},
		{name: "who began a service that held more than is known", asked: over(),
			processes: []host.Process{inits, adopted(living(user(service, was(90, 80, 10, 0))))},
			past: append([]host.Remembered{user(service, was(100, 90, 25, 60, over())),
				func() host.Remembered {
					r := user(service, was(90, 80, 10, 0, came(innocent, 71, 72)))
					r.Cut = true
					return r
				}()}, began...),
			gaps: []string{"more than are known of"}},
		{name: "who began another user's service", asked: over(),
			processes: []host.Process{inits, adopted(living(was(90, 80, 10, 0)))},
			past:      append([]host.Remembered{user(mallory, was(100, 90, 25, 60, over())), was(90, 80, 10, 0)}, began...),
			gaps:      []string{"does not direct it"}},
		{name: "who left sudo behind", asked: over(),
			processes: []host.Process{inits, adopted(living(func() host.Remembered { r := was(90, 80, 10, 0); r.Process.Session = new(80); return r }()))},
			past: []host.Remembered{user(mallory, was(100, 90, 25, 60, over())), func() host.Remembered { r := was(90, 80, 10, 0); r.Process.Session = new(80); return r }(),
				func() host.Remembered { r := user(1003, was(80, 70, 5, 20)); r.Process.Session = new(80); return r }(), began[1]},
			previous: []string{admin}},
		{name: "who came to a living service when it was over", asked: over(),
			processes: []host.Process{inits, adopted(living(user(service, was(100, 1, 10, 0)), listen(22), in(22, innocent)))},
			past:      []host.Remembered{user(service, was(100, 1, 10, 0, open(innocent, 60), came(attacker, 25, 55), over()))},
			previous:  []string{attacker}},
		{name: "who is attached when it was over", asked: over(),
			processes: []host.Process{inits, adopted(living(user(service, was(90, 1, 10, 0)), host.Descriptor{Kind: host.Pipe, Mode: host.Read, Object: "p", Peer: "p"})),
				living(user(service, was(110, 111, 60, 0)), host.Descriptor{Kind: host.Pipe, Mode: host.Write, Object: "p", Peer: "p"}),
				living(user(service, was(111, 1, 59, 0)), in(22, innocent))},
			past: []host.Remembered{user(service, was(100, 90, 25, 60, over())), user(service, was(90, 1, 10, 0)),
				user(service, was(110, 111, 60, 0)), user(service, was(111, 1, 59, 0, open(innocent, 59)))}},
		{name: "who was handed it and ended it", asked: over(),
			processes: []host.Process{inits, living(user(bob, was(95, 94, 10, 0))), living(user(bob, was(94, 1, 9, 0)), in(22, innocent))},
			past: []host.Remembered{user(mallory, was(100, 80, 25, 40, over())), user(bob, was(95, 94, 10, 0, over())),
				user(mallory, was(80, 70, 5, 26)), was(70, 1, 4, 27, came(attacker, 4, 27))},
			previous: []string{attacker}, gaps: []string{"it ended the connection"}},
		{name: "who kept a pipe to log by, of a listener that has ended", asked: over(),
			past: func() []host.Remembered {
				// As PostgreSQL has them: 90 accepts, and has both ends of what all write their log to, and one by which all see that it lives.
				master, logger := user(service, was(90, 1, 5, 80)), user(service, was(91, 90, 6, 80))
				one, other := user(service, was(100, 90, 25, 60, came(attacker, 24, 60))), user(service, was(101, 90, 23, 70, came(innocent, 22, 70)))
				for _, b := range []*host.Remembered{&one, &other} {
					told(&master, b, host.Pipe, "lives")
					told(b, &master, host.Pipe, "log")
					told(b, &logger, host.Pipe, "log")
				}
				return []host.Remembered{user(service, was(110, 100, 29, 60, over())), one, other, master, logger}
			}(),
			previous: []string{attacker}},
		{name: "a terminal of that number", asked: over(),
			past: func() []host.Remembered {
				owner, other := user(mallory, was(100, 1, 20, 60, over())), user(bob, was(90, 1, 22, 70, came(innocent, 21, 70)))
				slave := host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Side: host.Slave, Object: "pts", Peer: "ptm", Number: new(3)}
				master := host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Side: host.Master, Object: "ptm", Peer: "pts", Number: new(3)}
				both(&owner, &other, slave, master)
				return []host.Remembered{owner, other}
			}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(tt.processes...)
			h.Sockets, h.Remembered = []host.Socket{tt.asked}, tt.past
			r := runSnapshot(t, h, Question{Socket: tt.asked, Host: h.Recording.Facts})
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.previous, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s", d)
			}
			for _, want := range tt.gaps {
				if !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, want) }) {
					t.Errorf("no gap says %q: %s", want, fmt.Sprint(r.Gaps))
				}
			}
		})
	}
}

// TestPastLosses: what may be missing is said of what is named by what is remembered as well.
func TestPastLosses(t *testing.T) {
	asked := came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	owner := was(100, 1, 20, 60, asked, came("203.0.113.1:1025", 25, 55))
	owner.Gaps = []host.Gap{{PID: 100, What: "the past", Why: "events were lost"}}
	h := recording()
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{owner}
	r := runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts})
	if len(r.Previous) != 1 || !slices.Contains(r.Gaps, owner.Gaps[0]) {
		t.Errorf("previous hosts are %+v, gaps %v", r.Previous, r.Gaps)
	}
}

// TestTerminalLeft: who began what keeps terminals, and had left when one was opened, is not taken for who was at it.
func TestTerminalLeft(t *testing.T) {
	const first = "203.0.113.1:1025"
	slave := host.Descriptor{FDs: []int{0}, Kind: host.PTY, Mode: host.ReadWrite, Side: host.Slave, Object: "pts", Peer: "ptm", Number: new(4)}
	master := host.Descriptor{FDs: []int{5}, Kind: host.PTY, Mode: host.ReadWrite, Side: host.Master, Object: "ptm", Peer: "pts", Number: new(4)}
	for _, tt := range []struct {
		name     string
		terminal bool
		until    int // that the first was there
		previous []string
		gap      string
	}{
		{"there", true, 35, []string{first}, ""},
		{"left", true, 25, nil, "whoever was at its terminal"},
		{"left a program behind", false, 25, []string{first}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// 80 began 90, which made 100 for who was at a terminal, or by itself.
			owner, keeper := process(100, 90, asked()), process(90, 1)
			if tt.terminal {
				owner.Descriptors, keeper.Descriptors = append(owner.Descriptors, slave), append(keeper.Descriptors, master)
			}
			h := recording(host.Process{PID: 1, StartTicks: 1}, owner, keeper)
			h.Remembered = []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 0), was(80, 70, 10, 40, came(first, 9, tt.until)),
				was(70, 60, 5, 40), was(60, 1, 4, 10, came("203.0.113.3:1027", 4, 10))}
			q := question()
			q.Host, q.Socket.Opened = h.Recording.Facts, second(50)
			expect(t, runSnapshot(t, h, q), tt.previous, tt.gap)
		})
	}
}

// TestPastBound: what is remembered is asked for so often and no more, and where not all is known nobody is named.
func TestPastBound(t *testing.T) {
	asked := came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	for _, n := range []int{1, 20} {
		h := recording()
		h.Sockets = []host.Socket{asked}
		owner := of(1001, new(was(100, 90, 20, 60, asked)))
		for i := range n { // with whom it is not joined, since they are other users'
			other := of(1101, new(was(200+i, 0, 10, 60)))
			told(other, owner, host.PTY, fmt.Sprint("p", i))
			h.Remembered = append(h.Remembered, *other)
		}
		h.Remembered = append(h.Remembered, *owner, *of(1001, new(was(90, 1, 10, 60, came("203.0.113.1:1025", 15, 55)))))
		s, err := h.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		asks := counting{Snapshot: s, asked: map[host.ID]bool{}}
		r := Run(t.Context(), asks, Question{Socket: asked, Host: h.Recording.Facts}, Options{Hub: 16, Processes: 3, Descriptors: 100})
		if n == 1 {
			expect(t, r, []string{"203.0.113.1:1025"}, "")
		} else {
			expect(t, r, nil, "bound: 12 processes")
		}
		if len(asks.asked) > 12 {
			t.Errorf("it was asked for %d processes", len(asks.asked))
		}
	}
}

// counting counts the processes of which it was asked what is remembered.
type counting struct {
	host.Snapshot
	asked map[host.ID]bool
}

func (c counting) Remembered(ctx context.Context, id host.ID) (host.Remembered, error) {
	c.asked[id] = true
	return c.Snapshot.Remembered(ctx, id)
}

// TestToldThen: what told somebody to leave a process behind, and is over, leads on.
func TestToldThen(t *testing.T) {
	const mallory = 1001
	left, shell, relay := of(mallory, new(was(100, 90, 30, 0))), of(mallory, new(was(90, 80, 20, 31))), of(mallory, new(was(85, 80, 19, 40, came("203.0.113.1:1025", 19, 40))))
	began := of(mallory, new(was(80, 70, 5, 41, came("203.0.113.3:1027", 5, 41))))
	told(relay, shell, host.Pipe, "p")
	p := left.Process
	p.PPID, p.Descriptors = new(1), []host.Descriptor{number(3, asked())}
	h := recording(host.Process{PID: 1, StartTicks: 1}, p)
	h.Remembered = []host.Remembered{*left, *shell, *relay, *began}
	q := question()
	q.Host, q.Socket.Opened = h.Recording.Facts, second(50)
	if r := runSnapshot(t, h, q); len(r.Previous) != 1 || r.Previous[0].Remote.String() != "203.0.113.1:1025" {
		t.Errorf("previous hosts are %+v, gaps %v", r.Previous, r.Gaps)
	}
}
