package trace

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A hub is a service that more than Options.Hub others talk to.
func TestHub(t *testing.T) {
	kinds := map[string]func(i int) (client, server host.Descriptor){
		"pipe":        func(int) (c, s host.Descriptor) { return pipe("p", host.ReadWrite), pipe("p", host.ReadWrite) },
		"UNIX socket": func(i int) (c, s host.Descriptor) { return unix(fmt.Sprint("client ", i), "/run/bus") },
		"TCP":         func(i int) (c, s host.Descriptor) { return local(host.TCP, uint16(41000+i), 5432) },
	}
	for name, connect := range kinds {
		for _, clients := range []int{Defaults.Hub, Defaults.Hub + 1} {
			t.Run(fmt.Sprint(name, " ", clients), func(t *testing.T) {
				service := process(5000, 1)
				ps := []host.Process{initProcess, process(70, 1)}
				for i := range clients {
					c, s := connect(i)
					c.FDs, s.FDs = []int{3}, []int{10 + i}
					if i == 0 || s.Object != service.Descriptors[0].Object {
						service.Descriptors = append(service.Descriptors, s)
					}
					if i == 0 {
						ps[1] = process(70, 1, asked(), c)
					} else {
						ps = append(ps, process(100+i, 1, in(22, fmt.Sprintf("203.0.113.77:%d", 50000+i)), c))
					}
				}
				h := recording(append(ps, as(105, service))...)
				r := run(t, h)
				// The service and its other clients.
				hub := clients > Defaults.Hub
				if len(r.Channels) == 0 || r.Channels[0].Followed == hub {
					t.Fatalf("with %d clients: %+v", clients, r.Channels)
				}
				if got := len(r.Processes) == 2; got != hub {
					t.Errorf("with %d clients the closure has %d processes", clients, len(r.Processes))
				}
				if hub {
					if want := fmt.Sprintf("hub: %d local peers", clients); r.Channels[0].Why != want {
						t.Errorf("why is %q, want %q", r.Channels[0].Why, want)
					}
				}
				if name != "pipe" && len(r.Previous) != 0 {
					t.Errorf("another client of the service is accused: %+v", r.Previous)
				}
			})
		}
	}
}

// within puts a process into a control group.
func within(cgroup string, p host.Process) host.Process {
	p.Cgroup = cgroup
	return p
}

// What two clients of one service have in common is the service. A relay that a user runs for themselves is
// another matter.
func TestServiceKeepsClientsApart(t *testing.T) {
	c1, s1 := unix("one", "/run/service")
	c2, s2 := unix("two", "/run/service")
	t1, u1 := local(host.TCP, 41001, 5432)
	t2, u2 := local(host.TCP, 41002, 5432)
	up, down := unix("upstream", "/run/upstream")
	master, slave := pty(0)
	tests := []struct {
		name string
		ps   []host.Process
		want []string
	}{
		{"a database on a UNIX socket", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1001, process(71, 1, in(80, other), c2)), as(105, process(60, 1, s1, s2))}, none},
		{"a database on a port", []host.Process{as(1000, process(70, 1, asked(), t1)), as(1001, process(71, 1, in(80, other), t2)), as(105, process(60, 1, u1, u2))}, none},
		{"a database on both", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1001, process(71, 1, in(80, other), t2)), as(105, process(60, 1, s1, u2))}, none},
		{"clients of a service on other hosts", []host.Process{as(1000, process(70, 1, asked(), t1)), as(105, process(60, 1, u1, listen(8080), in(8080, other), in(8080, third)))}, none},
		{"clients of a user's own service on other hosts", []host.Process{as(1000, process(70, 1, asked(), t1)), as(1000, process(60, 1, u1, listen(8080), in(8080, attacker)))}, []string{attacker + " inbound"}},
		{"root's service", []host.Process{within("/session-3", process(70, 1, asked(), c1)), within("/session-4", process(71, 1, in(80, other), c2)),
			within("/sssd.service", process(60, 1, s1, s2))}, none},
		{"root's own relay", []host.Process{within("/session-3", process(70, 1, asked(), c1)), within("/session-3", process(71, 1, in(8888, attacker), c2)),
			within("/session-3", process(60, 1, s1, s2))}, []string{attacker + " inbound"}},
		{"the service's own connections count", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1, s2, in(3306, attacker)))}, []string{attacker + " inbound"}},
		{"so do those behind it", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1, s2, up)), process(61, 1, down, in(80, attacker))}, []string{attacker + " inbound"}},
		{"a user's own relay", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1000, process(71, 1, in(8888, attacker), c2)), as(1000, process(60, 1, s1, s2))}, []string{attacker + " inbound"}},
		{"whoever is attached to the service that runs the owner", []host.Process{process(60, 1, s1, s2, master), process(70, 60, asked(), slave),
			process(71, 1, in(22, attacker), c1), process(72, 1, in(22, third), c2)}, []string{attacker + " inbound", third + " inbound"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := summary{Previous: tt.want}
			if d := cmp.Diff(want, summarize(run(t, recording(append(tt.ps, initProcess)...)), want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What the reviewers of a busy login host would object to: connections of services and listeners that belong
// to others.
func TestOthersConnections(t *testing.T) {
	c, s := unix("nss", "/run/nss")
	up, down := unix("backend", "/run/backend")
	session := process(50, 40, in(22, attacker), number(9, asked()))
	tests := []struct {
		name string
		ps   []host.Process
		want []string
	}{
		{"a listener that has just accepted somebody else", []host.Process{session, process(40, 1, listen(22), in(22, other))}, []string{attacker + " inbound"}},
		{"the directory behind a name service", []host.Process{as(1000, process(70, 1, asked(), c)), process(60, 1, s, up),
			process(61, 1, down, out(50000, "203.0.113.5:636", "ldap"))}, none},
		{"the clients behind a front end", []host.Process{as(1000, process(70, 1, asked(), c)), process(60, 1, s, up),
			process(61, 1, down, listen(80), in(80, other))}, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := summary{Previous: tt.want}
			if d := cmp.Diff(want, summarize(run(t, recording(append(tt.ps, initProcess)...)), want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A local user may ask the daemon as well: those who ask it from other hosts are no suspects for that.
func TestDaemonItself(t *testing.T) {
	c, s := local(host.TCP, 41001, 113)
	h := recording(process(70, 1, asked(), c), process(60, 1, s, listen(113), in(113, other)), initProcess)
	for daemon, want := range map[int][]string{60: none, 0: {other + " inbound"}} {
		q := question()
		q.Daemon = daemon
		got := summarize(runSnapshot(t, h, q), summary{Previous: want})
		if d := cmp.Diff(want, got.Previous); d != "" {
			t.Errorf("daemon %d (-want +got):\n%s", daemon, d)
		}
	}
}
