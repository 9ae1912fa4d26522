package trace

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// TestChildren: what a process shares with those that it made joins none of them to the others. 60 is the maker; 71 and 72 are its children.
func TestChildren(t *testing.T) {
	const www, mallory, bob = 33, 1001, 1101
	pod := pipe("pod", host.ReadWrite)
	in1, in2, out1, out2 := pipe("stdin 1", host.Read), pipe("stdin 2", host.Read), pipe("stdout 1", host.Write), pipe("stdout 2", host.Write)
	m1, c1 := unix("pair 1", "")
	m2, c2 := unix("pair 2", "")
	up, down := pipe("relayed", host.Write), pipe("relayed", host.Read)
	client, service := unix("client", "/run/service")
	master, slave := pty(1)
	attackers, others := in(80, attacker), in(80, other)
	supervisor := func(ds ...host.Descriptor) host.Process {
		return process(60, 1, append(ds, with(host.Write, in1), with(host.Write, in2), with(host.Read, out1), with(host.Read, out2))...)
	}
	for _, tt := range []struct {
		name string
		ps   []host.Process
		want []string
		gap  string
	}{
		{"programs of a supervisor", []host.Process{supervisor(), as(mallory, process(71, 60, in1, out1, asked())), as(bob, process(72, 60, in2, out2, others))}, none, "what its clients say"},
		{"each with its own client", []host.Process{supervisor(), as(mallory, process(71, 60, in1, out1, asked(), attackers)), as(bob, process(72, 60, in2, out2, others))},
			[]string{attacker}, ""},
		{"of one user, each with a client", []host.Process{supervisor(), process(71, 60, in1, out1, asked(), attackers), process(72, 60, in2, out2, others)}, []string{attacker}, ""},
		{"what a supervisor does itself", []host.Process{supervisor(asked()), as(mallory, process(71, 60, in1, out1, attackers)), as(bob, process(72, 60, in2, out2))}, []string{attacker}, ""},

		{"workers that inherited one pipe, and a child of one", []host.Process{process(60, 1, pod), as(www, process(71, 60, pod, attackers, with(host.Read, out1))), as(www, process(72, 60, pod, others)),
			as(www, process(81, 71, out1, asked()))}, []string{attacker}, ""},
		{"a child of a worker that has the pipe as well", []host.Process{process(60, 1, pod), as(www, process(71, 60, pod, attackers)), as(www, process(72, 60, pod, others)),
			as(www, process(81, 71, pod, asked()))}, []string{attacker}, ""},
		{"a worker without a client", []host.Process{process(60, 1, pod), as(www, process(71, 60, pod, asked())), as(www, process(72, 60, pod, others))}, none, ""},
		{"workers that have each other's sockets", []host.Process{process(60, 1, m1, m2), as(www, process(71, 60, number(9, c1), attackers, number(8, m2), asked())), as(www, process(72, 60, number(9, c2), number(8, m1), others))},
			[]string{attacker}, ""},
		{"workers of one user's own", []host.Process{as(www, process(60, 1, pod)), as(www, process(71, 60, pod, asked(), attackers)), as(www, process(72, 60, pod, others))}, []string{attacker}, ""},

		{"a maker that was told itself", []host.Process{process(60, 1, attackers, m1), as(www, process(71, 60, c1, asked()))}, []string{attacker}, ""},
		{"a maker whose client was told", []host.Process{process(60, 1, service, m1), process(71, 60, c1, asked()), process(80, 1, client, attackers)}, []string{attacker}, ""},
		{"another user's maker whose client was told", []host.Process{process(60, 1, service, m1), as(www, process(71, 60, c1, asked())), process(80, 1, client, others)}, none, "connections"},
		{"a maker at a terminal", []host.Process{process(50, 1, attackers, master), as(mallory, process(60, 50, slave, with(host.Write, in1))), as(mallory, process(71, 60, in1, asked()))}, []string{attacker}, ""},
		{"a relay of one user by their maker", []host.Process{process(60, 1, m1, m2), process(71, 60, c1, in(8888, attacker)), process(72, 60, c2, asked())}, []string{attacker}, ""},
		{"of two users", []host.Process{process(60, 1, m1, m2), as(bob, process(71, 60, c1, others)), process(72, 60, c2, asked())}, none, "what its clients say"},
		{"where the maker was told", []host.Process{process(60, 1, m1, m2, in(22, third)), process(71, 60, c1, others), process(72, 60, c2, asked())}, []string{third}, ""},
		{"one child was given the writing end, another the reading end", []host.Process{process(60, 1, with(host.ReadWrite, up)), as(bob, process(71, 60, up, attackers)), as(mallory, process(72, 60, down, asked()))},
			[]string{attacker}, ""},
		{"a pipe of others as well", []host.Process{process(60, 1, pod), process(71, 60, pod, asked()), process(72, 60, pod), process(90, 1, pod, attackers)}, []string{attacker}, ""},
		{"the first process has it as well", []host.Process{process(1, 0, pod), process(71, 1, pod, asked()), process(72, 1, pod, attackers)}, []string{attacker}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ps := tt.ps
			if ps[0].PID != 1 {
				ps = append(ps, initProcess)
			}
			r := run(t, recording(ps...))
			got := none
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.HasPrefix(g.What, tt.gap) }) && tt.gap != "" {
				t.Errorf("gaps are %+v, want %q", r.Gaps, tt.gap)
			}
		})
	}
}

// TestChildrenWhoHaveLeft: who has left a worker is not made up for by who is at another one.
func TestChildrenWhoHaveLeft(t *testing.T) {
	const www = 33
	const attacker, innocent, third = "203.0.113.1:1025", "203.0.113.2:1026", "203.0.113.3:1027"
	pod := pipe("pod", host.ReadWrite)
	worker := func(pid int, ds ...host.Descriptor) host.Process {
		return as(www, process(pid, 60, append(ds, pod, listen(22))...))
	}
	maker := func(ds ...host.Descriptor) host.Process { return as(www, process(60, 1, append(ds, pod)...)) }
	many := []host.Socket{}
	for i := range Defaults.Hub + 1 {
		many = append(many, came(hostNumbered(i), 31, 35))
	}
	for _, tt := range []struct {
		name string
		ps   []host.Process
		past []host.Remembered
		want []string
		gap  string
	}{
		{name: "he has left", ps: []host.Process{maker(), worker(71, asked()), worker(72, openedAt(20, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0, came(attacker, 25, 35))}, want: []string{attacker}},
		{name: "another had left before", ps: []host.Process{maker(), worker(71, asked(), openedAt(31, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0, came(attacker, 25, 35), came(third, 12, 20))}, want: []string{attacker, innocent}},
		{name: "two have left", ps: []host.Process{maker(), worker(71, asked()), worker(72, openedAt(20, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0, came(attacker, 25, 35), came(third, 25, 40))}, gap: "2 hosts"},
		{name: "so many have left that nothing tells which", ps: []host.Process{maker(), worker(71, asked()), worker(72, openedAt(20, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0, many...)}, gap: "more than 16 hosts"},
		{name: "he has left a child of the one who is there", ps: []host.Process{maker(listen(8080), openedAt(20, in(8080, innocent))), worker(71, asked())},
			past: []host.Remembered{was(60, 1, 2, 0), was(71, 60, 30, 0, came(attacker, 31, 35))}, want: []string{attacker, innocent}},
		{name: "nobody was there", ps: []host.Process{maker(), worker(71, asked()), worker(72, openedAt(20, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0)}, want: []string{innocent}}, // what children of one user say to each other is the last that is looked at
		{name: "nobody was there, and the maker is another user's", ps: []host.Process{process(60, 1, pod), worker(71, asked()), worker(72, openedAt(20, in(22, innocent)))},
			past: []host.Remembered{was(71, 60, 10, 0)}, gap: "what each of them was told is not kept"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(append(tt.ps, initProcess)...)
			h.Remembered = tt.past
			q := question()
			q.Host, q.Socket.Opened = h.Recording.Facts, second(32)
			r := runSnapshot(t, h, q)
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s\ngaps: %+v", d, r.Gaps)
			}
			if !slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, tt.gap) }) && tt.gap != "" {
				t.Errorf("gaps are %+v, want %q", r.Gaps, tt.gap)
			}
		})
	}
}
