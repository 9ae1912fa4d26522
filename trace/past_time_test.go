package trace

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// isOver is an asked connection to the victim, open from 30 to 50.
func isOver() host.Socket {
	s := came(victim.String(), 30, 50)
	s.Direction, s.Local = host.Outbound, question().Socket.Local
	return s
}

// open is a connection that came from a host and is open still.
func open(remote string, from int) host.Socket {
	s := came(remote, from, 0)
	s.State = "ESTABLISHED"
	return s
}

// TestPastInTime: nobody is named for what he did before the asked connection was established, or after it was closed, nor where that is not known.
func TestPastInTime(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	const mallory, bob, service = 1001, 1101, 1201
	socket := func(own, other string, named bool) host.Descriptor {
		return host.Descriptor{FDs: []int{3}, Kind: host.Unix, Mode: host.ReadWrite, Object: host.Object(own), Peer: host.Object(other), Named: named}
	}
	// bobs are a client of bob's that has ended before, his shell, and his login, which is open still or was then.
	bobs := func(uid uint32, join func(client *host.Remembered)) []host.Remembered {
		c, sh := of(uid, new(was(203, 202, 12, 18))), of(uid, new(was(202, 201, 11, 70)))
		join(c)
		return []host.Remembered{*c, *sh, *of(uid, new(was(201, 1, 10, 70, came(innocent, 10, 70))))}
	}
	for _, tt := range []struct {
		name     string
		asked    host.Socket
		living   []host.Process
		past     func(asked host.Socket) []host.Remembered
		previous []string
		gap      string
	}{
		{name: "a service's client before", asked: isOver(), past: func(asked host.Socket) []host.Remembered {
			x := of(service, new(was(100, 1, 5, 80, asked, came(attacker, 24, 70))))
			return append(bobs(bob, func(c *host.Remembered) { both(c, x, socket("c", "s", false), socket("s", "c", true)) }), *x)
		}, previous: []string{attacker}},
		{name: "a service's client before, alone", asked: isOver(), past: func(asked host.Socket) []host.Remembered {
			x := of(service, new(was(100, 1, 5, 80, asked)))
			return append(bobs(bob, func(c *host.Remembered) { both(c, x, socket("c", "s", false), socket("s", "c", true)) }), *x)
		}, gap: "it had ended before the connection was established"},
		{name: "who wrote to a FIFO before", asked: isOver(), past: func(asked host.Socket) []host.Remembered {
			x := of(service, new(was(100, 1, 5, 80, asked)))
			return append(bobs(bob, func(c *host.Remembered) { told(c, x, host.FIFO, "f") }), *x)
		}, gap: "it had ended before the connection was established"},
		{name: "who was at the terminals before", asked: isOver(), past: func(asked host.Socket) []host.Remembered {
			window, server := of(mallory, new(was(100, 90, 25, 60, asked))), of(mallory, new(was(90, 1, 5, 80)))
			both(server, window, host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Side: host.Master, Object: "ptm", Peer: "pts", Number: new(3)},
				host.Descriptor{Kind: host.PTY, Mode: host.ReadWrite, Side: host.Slave, Object: "pts", Peer: "ptm", Number: new(3)})
			now := of(mallory, new(was(302, 301, 25, 60)))
			both(now, server, socket("c2", "s2", false), socket("s2", "c2", true))
			return append(bobs(mallory, func(c *host.Remembered) { both(c, server, socket("c1", "s1", false), socket("s1", "c1", true)) }), *window, *server, *now,
				*of(mallory, new(was(301, 1, 24, 70, came(attacker, 24, 70)))))
		}, previous: []string{attacker}},
		{name: "met only after it was closed", asked: isOver(),
			living: []host.Process{*processOf(service, 100, 10, number(1, listen(22)), number(2, since(in(22, innocent), 60)))},
			past: func(asked host.Socket) []host.Remembered {
				met := open(innocent, 0)
				met.Opened, met.Since = met.Closed, second(60)
				return []host.Remembered{*of(service, new(was(100, 1, 10, 0, met, came(attacker, 25, 55), asked)))}
			}, gap: "may have been opened only after"},
		{name: "not known since when", asked: isOver(), living: []host.Process{*processOf(service, 100, 10, number(2, in(22, innocent)))},
			past: func(asked host.Socket) []host.Remembered {
				return []host.Remembered{*of(service, new(was(100, 1, 10, 0, asked)))}
			}, gap: "may have been opened only after"},
		{name: "met before it was closed", asked: isOver(), living: []host.Process{*processOf(service, 100, 10, number(2, since(in(22, attacker), 40)))},
			past: func(asked host.Socket) []host.Remembered {
				met := open(attacker, 0)
				met.Opened, met.Since = met.Closed, second(40)
				return []host.Remembered{*of(service, new(was(100, 1, 10, 0, met, asked)))}
			}, previous: []string{attacker}},
		{name: "a client that may have come after", asked: isOver(),
			living: []host.Process{*processOf(service, 100, 10, socket("us", "uc", true)), *processOf(bob, 90, 5, socket("uc", "us", false), number(4, since(in(22, innocent), 5)))},
			past: func(asked host.Socket) []host.Remembered {
				return []host.Remembered{*of(service, new(was(100, 1, 10, 0, asked))), *of(bob, new(was(90, 1, 5, 0, open(innocent, 5))))}
			}, gap: "only since the connection was closed"},
		{name: "another client of who was asked", asked: came("203.0.113.9:999", 30, 50), past: func(asked host.Socket) []host.Remembered {
			return []host.Remembered{*of(service, new(was(100, 1, 10, 60, asked, came(innocent, 25, 55))))}
		}, gap: "of 2 hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(append(tt.living, host.Process{PID: 1, StartTicks: 1, EUID: new(uint32(0))})...)
			h.Sockets, h.Remembered = []host.Socket{tt.asked}, tt.past(tt.asked)
			r := runSnapshot(t, h, Question{Socket: tt.asked, Host: h.Recording.Facts, OnBehalf: tt.asked.Direction == host.Inbound})
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
			}
			if d := cmp.Diff(tt.previous, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s\ngaps: %+v", d, r.Gaps)
			}
			if tt.gap != "" && !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, tt.gap) }) {
				t.Errorf("gaps are %+v, want %q", r.Gaps, tt.gap)
			}
		})
	}
}

// processOf is a living process of a user's, which init has.
func processOf(uid uint32, pid, start int, ds ...host.Descriptor) *host.Process {
	p := of(uid, new(was(pid, 1, start, 0))).Process
	p.Descriptors = ds
	return &p
}

// since is a connection that was met at a time.
func since(d host.Descriptor, at int) host.Descriptor {
	d.Since = second(at)
	return d
}

// A forgetting snapshot remembers nothing of one process.
type forgetting struct {
	host.Snapshot
	id host.ID
}

func (f forgetting) Remembered(ctx context.Context, id host.ID) (host.Remembered, error) {
	if id == f.id {
		return host.Remembered{}, host.ErrNotFound
	}
	return f.Snapshot.Remembered(ctx, id)
}

// TestForgottenHolder: who was handed a connection and closed it is no owner, though who had it first is not remembered any more.
func TestForgottenHolder(t *testing.T) {
	asked := isOver()
	first, last := of(1001, new(was(100, 1, 20, 40, asked))), of(1101, new(was(95, 1, 10, 0, asked)))
	h := recording(host.Process{PID: 1, StartTicks: 1, EUID: new(uint32(0))}, *processOf(1101, 95, 10, number(1, since(in(22, "203.0.113.2:1026"), 5))))
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{*first, *last}
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, snap := range []host.Snapshot{s, forgetting{s, first.Process.ID()}} {
		r := Run(t.Context(), snap, Question{Socket: asked, Host: h.Recording.Facts}, Options{Hub: 16, Processes: 100, Descriptors: 1000})
		if slices.Contains(r.Owners, 95) || len(r.Previous) > 0 {
			t.Errorf("owners are %v, previous hosts %+v", r.Owners, r.Previous)
		}
	}
}
