package trace

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A busyHost tells of each process the last few connections at once, and of any time all.
type busyHost struct{ host.Snapshot }

func (b busyHost) Remembered(ctx context.Context, id host.ID) (host.Remembered, error) {
	r, err := b.Snapshot.Remembered(ctx, id)
	if len(r.Held) > 4 {
		r.Held, r.Cut = r.Held[len(r.Held)-4:], true
	}
	return r, err
}

// TestPushedOut: whoever holds many connections does not hide by which his commands came.
func TestPushedOut(t *testing.T) {
	const attacker = "203.0.113.1:1025"
	out := func(n, from, to int) host.Socket {
		s := came(fmt.Sprintf("203.0.113.9:%d", 2000+n), from, to)
		s.Direction = host.Outbound
		return s
	}
	login, asked := came(attacker, 10, 90), came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	later := was(100, 1, 5, 95, login, asked)
	for i := range 100 {
		// Some while the asked one was open, some of others that came when it was over.
		later.Held = append(later.Held, out(i, 31, 49), came(fmt.Sprintf("203.0.113.8:%d", 2000+i), 60, 61))
	}
	h := recording()
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{*of(1001, &later)}
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), busyHost{s}, Question{Socket: asked, Host: h.Recording.Facts}, Defaults)
	if len(r.Previous) != 1 || r.Previous[0].Remote.String() != attacker {
		t.Errorf("previous hosts are %+v, gaps %v", r.Previous, r.Gaps)
	}
}

// TestUnnoticed: a connection of which it was not noticed when it was opened or ended is not named for a time at which it may have been over, and
// no other is in its place.
func TestUnnoticed(t *testing.T) {
	const attacker, innocent, admin = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	ended := func(s host.Socket, until int) host.Socket { s.Until = second(until); return s }
	met := func(s host.Socket) host.Socket { s.Since, s.Opened = s.Opened, time.Time{}; return s }
	// The admin began it, and is still logged in.
	const may = "it may have been open or not"
	for _, tt := range []struct {
		name     string
		held     []host.Socket
		previous []string
		gap      string
	}{
		{"it may have ended before", []host.Socket{ended(came(attacker, 10, 60), 20)}, nil, may},
		{"it ended after", []host.Socket{ended(came(attacker, 10, 60), 40)}, []string{attacker, admin}, ""},
		{"another may have ended before", []host.Socket{came(attacker, 10, 60), ended(came(innocent, 10, 60), 20)}, nil, "of 2 hosts"},
		{"another of the same host may have ended before", []host.Socket{came(attacker, 10, 60), ended(came("203.0.113.1:1030", 10, 60), 20)}, []string{attacker, admin}, ""},
		{"it may have come after", []host.Socket{met(came(attacker, 40, 60))}, nil, may},
		{"it came before it was met", []host.Socket{met(came(attacker, 20, 60))}, []string{attacker, admin}, ""},
		{"another may have come before", []host.Socket{came(attacker, 10, 60), met(came(innocent, 40, 60))}, nil, "of 2 hosts"},
		{"one from this host may have ended before", []host.Socket{came(attacker, 10, 60), ended(came("127.0.0.1:1028", 10, 60), 20)}, nil, "from this host itself"},
		{"it ended before for sure", []host.Socket{ended(came(attacker, 10, 25), 20)}, []string{admin}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := came(victim.String(), 30, 50)
			asked.Direction, asked.Local = host.Outbound, question().Socket.Local
			h := recording()
			h.Sockets = []host.Socket{asked}
			h.Remembered = []host.Remembered{was(100, 90, 5, 60, append(tt.held, asked)...), was(90, 1, 4, 70, came(admin, 4, 70))}
			expect(t, runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts}), tt.previous, tt.gap)
		})
	}
}

// TestAskedUnnoticed: where the end of the asked connection was not noticed, what came after it may have ended is not named.
func TestAskedUnnoticed(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	asked := came(victim.String(), 30, 60)
	asked.Direction, asked.Local, asked.Until = host.Outbound, question().Socket.Local, second(40)
	for from, previous := range map[int][]string{35: {attacker}, 50: nil} {
		owner, other := of(1001, new(was(100, 1, 20, 60, asked))), of(1001, new(was(90, 1, 10, 70, came(attacker, from, 70))))
		told(other, owner, host.Pipe, "p")
		h := recording()
		h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{*owner, *other}
		expect(t, runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts}), previous, "")
	}
	// And of what is open since.
	p := process(100, 1, in(22, innocent), in(22, attacker))
	p.Descriptors[0].Opened, p.Descriptors[1].Opened = second(50), second(20)
	h := recording(p)
	h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{was(100, 1, 10, 0, asked)}
	expect(t, runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts}), []string{attacker}, "")
}

// TestOpenBeside: what a living process has counts beside what is remembered that it held, also where nobody is remembered to have it, as before Linux 6.3.
func TestOpenBeside(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	for _, tt := range []struct {
		name     string
		opened   int // 0 is not known
		held     bool
		previous []string
		gap      string
	}{
		{"open then", 20, true, nil, "of 2 hosts"},
		{"open then, of nobody", 20, false, nil, "of 2 hosts"},
		{"of nobody, who knows since when", 0, false, nil, "of 2 hosts"},
		{"opened later", 40, true, []string{attacker}, ""},
		{"opened later, of nobody", 40, false, []string{attacker}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left := process(100, 1, asked()) // which 90 made, that lives on elsewhere
			p := process(90, 1, in(22, innocent))
			maker := was(90, 1, 10, 0, came(attacker, 15, 35))
			p.Start = maker.Process.Start
			if tt.opened != 0 {
				p.Descriptors[0].Opened = second(tt.opened)
			}
			if tt.held {
				s := came(innocent, tt.opened, 0)
				s.State = "ESTABLISHED"
				maker.Held = append(maker.Held, s)
			}
			h := recording(left, p)
			h.Remembered = []host.Remembered{was(100, 90, 30, 0), maker}
			q := question()
			q.Host = h.Recording.Facts
			expect(t, runSnapshot(t, h, q), tt.previous, tt.gap)
		})
	}
}

// TestCameLater: a connection that was established after the asked one was closed is nobody's for it, also where nobody is remembered to have it.
func TestCameLater(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	for opened, previous := range map[int][]string{60: {attacker}, 20: {attacker, innocent}} {
		asked := came(victim.String(), 30, 50)
		asked.Direction, asked.Local = host.Outbound, question().Socket.Local
		p := process(100, 1, in(22, innocent), in(22, attacker))
		p.Descriptors[0].Opened, p.Descriptors[1].Opened = second(opened), second(20)
		h := recording(p)
		h.Sockets, h.Remembered = []host.Socket{asked}, []host.Remembered{was(100, 1, 10, 0, asked)}
		expect(t, runSnapshot(t, h, Question{Socket: asked, Host: h.Recording.Facts}), previous, "")
	}
}

// expect holds previous hosts, and a part of a gap's why, against a result.
func expect(t *testing.T, r Result, previous []string, gap string) {
	t.Helper()
	var got []string
	for _, p := range r.Previous {
		got = append(got, p.Remote.String())
	}
	slices.Sort(got)
	if d := cmp.Diff(previous, got); d != "" {
		t.Errorf("previous hosts (-want +got):\n%s\ngaps %v", d, r.Gaps)
	}
	if gap != "" && !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, gap) }) {
		t.Errorf("no gap says %q: %+v", gap, r.Gaps)
	}
}
