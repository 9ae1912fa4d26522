package trace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// openedAt is a connection that is open from a second on.
func openedAt(from int, d host.Descriptor) host.Descriptor {
	d.Opened = second(from)
	return d
}

// hostNumbered is one of many other hosts.
func hostNumbered(i int) string { return fmt.Sprintf("203.0.113.%d:4000", 10+i) }

// crowded are connections of many other hosts.
func crowded(port uint16, n int) (ds []host.Descriptor) {
	for i := range n {
		ds = append(ds, openedAt(40, in(port, hostNumbered(i))))
	}
	return ds
}

// TestWhoHasLeft: who is at a service now is not named alone where others were there when it mattered, nor at all where he came too late.
func TestWhoHasLeft(t *testing.T) {
	const port = 22
	const attacker, innocent, third = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	service := func(ds ...host.Descriptor) host.Process { return process(90, 1, append(ds, listen(port))...) }
	child := process(100, 90, asked())
	read, write := pipe("p", host.Read), pipe("p", host.Write)
	kept := func(ds ...host.Descriptor) host.Process { return service(append(ds, asked())...) }
	many := []host.Socket{came(attacker, 25, 35)}
	for i := range Defaults.Hub {
		many = append(many, came(hostNumbered(i), 31, 35))
	}
	for _, tt := range []struct {
		name      string
		processes []host.Process
		past      []host.Remembered
		closed    int // when the asked connection was, 0 is never; it was established at 32
		previous  []string
		gap       string
		crowd     bool
	}{
		{name: "he came after the child was made", processes: []host.Process{child, service(openedAt(40, in(port, innocent)))},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 1, 1, 0, came(attacker, 25, 35))}, previous: []string{attacker}, gap: "came only after"},
		{name: "he came after the child was made, and can tell it something", processes: []host.Process{process(100, 90, asked(), read), service(openedAt(40, in(port, innocent)), write)},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 1, 1, 0, came(attacker, 25, 35))}, previous: []string{attacker, innocent}},
		{name: "he was there as the child was made, as another was", processes: []host.Process{child, service(openedAt(20, in(port, innocent)))},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 1, 1, 0, came(attacker, 25, 35), came(third, 2, 29))}, previous: []string{attacker, innocent}},
		{name: "a grandchild", processes: []host.Process{process(100, 95, asked()), process(95, 90), service(openedAt(31, in(port, innocent)))},
			past: []host.Remembered{was(100, 95, 32, 0), was(95, 90, 30, 0), was(90, 1, 1, 0, came(attacker, 25, 35))}, previous: []string{attacker}},
		{name: "nothing is remembered of the child", processes: []host.Process{child, service(openedAt(40, in(port, innocent)))}, previous: []string{innocent}},

		{name: "a kept connection, he came later", processes: []host.Process{kept(openedAt(40, in(port, innocent)))},
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 25, 35))}, previous: []string{attacker, innocent}},
		{name: "a kept connection, he was there before", processes: []host.Process{kept(openedAt(20, in(port, innocent)))},
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 33, 35), came(third, 2, 29))}, previous: []string{attacker, innocent}},
		{name: "a kept connection, over", processes: []host.Process{service(openedAt(20, in(port, innocent)))}, closed: 50,
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 33, 35), came(third, 51, 60))}, previous: []string{attacker, innocent}},
		{name: "one host alone", processes: []host.Process{kept()},
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 20, 33), came(innocent, 2, 29))}, previous: []string{attacker}},
		{name: "a kept connection, all have left", processes: []host.Process{kept()},
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 36, 39), came(innocent, 20, 33), came(third, 2, 29))}, previous: []string{attacker, innocent}},
		{name: "a kept connection, opened when nobody was there", processes: []host.Process{kept()},
			past: []host.Remembered{was(90, 1, 1, 0, came(attacker, 36, 39), came(third, 2, 29))}, previous: []string{attacker}},
		{name: "a kept connection, opened when nobody was there, and nobody came", processes: []host.Process{kept()},
			past: []host.Remembered{was(90, 1, 1, 0, came(third, 2, 29))}},
		{name: "a kept connection, over, and all have left", closed: 50,
			processes: []host.Process{service()},
			past:      []host.Remembered{was(90, 1, 1, 0, came(attacker, 36, 39), came(innocent, 20, 33), came(third, 51, 60))}, previous: []string{attacker, innocent}},
		{name: "too many have left", processes: []host.Process{kept(openedAt(20, in(port, innocent)))},
			past: []host.Remembered{was(90, 1, 1, 0, many...)}, gap: "more than 16 hosts", crowd: true},

		{name: "no listener any more", processes: []host.Process{process(90, 1, append(crowded(port, Defaults.Hub+1), asked())...)}, gap: "more than 16 hosts", crowd: true},
		{name: "connections of the many", processes: []host.Process{kept(append(crowded(port, Defaults.Hub+1), out(40001, "198.51.100.77:5432", "another"))...)}, gap: "more than 16 hosts", crowd: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(tt.processes...)
			h.Remembered = tt.past
			q := question()
			q.Host, q.Socket.Opened = h.Recording.Facts, second(32)
			if tt.closed != 0 {
				s := came(victim.String(), 32, tt.closed)
				s.Direction, s.Local = host.Outbound, q.Socket.Local
				h.Sockets = []host.Socket{s}
				h.Remembered[0].Held = append(slices.Clone(h.Remembered[0].Held), s)
				q.Socket = s
			}
			r := runSnapshot(t, h, q)
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.previous, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s\ngaps: %+v", d, r.Gaps)
			}
			if !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, tt.gap) }) && tt.gap != "" {
				t.Errorf("gaps are %+v, want %q", r.Gaps, tt.gap)
			}
			if len(r.Crowd) > 0 != tt.crowd {
				t.Errorf("the crowd is %v, want one: %v", r.Crowd, tt.crowd)
			}
		})
	}
}
