package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
		// Of a socket the service itself is not counted: it is at one end.
		most := Defaults.Hub + 1
		if name == "pipe" {
			most--
		}
		for _, clients := range []int{most, most + 1} {
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
				hub := clients > most
				if len(r.Channels) == 0 || r.Channels[0].Followed == hub {
					t.Fatalf("with %d clients: %+v", clients, r.Channels)
				}
				if got := len(r.Processes) == 2; got != hub {
					t.Errorf("with %d clients the closure has %d processes", clients, len(r.Processes))
				}
				if hub {
					if want := "hub: more than 16 processes of others"; r.Channels[0].Why != want {
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

// A relay of the intruder's own, with so many idle processes around it that it would be a hub.
func TestOwnHub(t *testing.T) {
	c1, s1 := unix("one", "/run/relay")
	c2, s2 := unix("two", "/run/relay")
	relays := map[string][]host.Process{
		"UNIX socket":              {as(1000, process(70, 1, asked(), c1)), as(1000, process(60, 1, s1, s2)), as(1000, process(71, 1, in(8888, attacker), c2))},
		"what he serves himself":   {as(1000, process(70, 1, asked(), s1)), as(1000, process(71, 1, in(8888, attacker), c1))},
		"pipe":                     {as(1000, process(70, 1, asked(), pipe("p", host.Read))), as(1000, process(71, 1, in(8888, attacker), pipe("p", host.Write)))},
		"memory":                   {as(1000, process(70, 1, asked(), kept(host.SHM, host.ReadWrite))), as(1000, process(71, 1, in(8888, attacker), kept(host.SHM, host.ReadWrite)))},
		"what another user serves": {as(1001, process(70, 1, asked(), s1)), as(1000, process(71, 1, in(8888, attacker), c1))},
	}
	idle := func(name string, i int, ps []host.Process) host.Descriptor {
		switch name {
		case "pipe":
			return pipe("p", host.Read)
		case "memory":
			return kept(host.SHM, host.ReadWrite)
		}
		at := 0
		if !strings.Contains(name, "serves") {
			at = 1
		}
		c, s := unix(fmt.Sprint("idle ", i), "/run/relay")
		ps[at].Descriptors = append(ps[at].Descriptors, number(100+i, s))
		return c
	}
	for name, relay := range relays {
		for uid, want := range map[uint32][]string{1000: {attacker + " inbound"}, 1002: none, 0: none} {
			t.Run(fmt.Sprint(name, ", idle ones of ", uid), func(t *testing.T) {
				ps := []host.Process{initProcess}
				for _, p := range relay {
					p.Descriptors = slices.Clone(p.Descriptors)
					ps = append(ps, p)
				}
				for i := range 2 * Defaults.Hub {
					ps = append(ps, as(uid, process(100+i, 1, idle(name, i, ps[1:]))))
				}
				want := summary{Previous: want}
				if d := cmp.Diff(want, summarize(run(t, recording(ps...)), want)); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		}
	}
}

// What is behind a service that serves very many hosts cannot be told.
func TestManyHosts(t *testing.T) {
	web := func(n int, format string) host.Process {
		p := process(60, 1, listen(80), pipe("p", host.Write))
		for i := range n {
			p.Descriptors = append(p.Descriptors, number(10+i, in(80, fmt.Sprintf(format, i+1))))
		}
		return as(33, p)
	}
	for _, tt := range []struct {
		name  string
		p     host.Process
		named int
		busy  bool
	}{
		{"few", web(Defaults.Hub, "203.0.113.%d:4000"), Defaults.Hub, false},
		{"many", web(Defaults.Hub+1, "203.0.113.%d:4000"), 0, true},
		{"many connections of one host", web(Defaults.Hub+1, "203.0.113.5:%d"), Defaults.Hub + 1, false},
		{"many addresses of one network", web(Defaults.Hub+1, "[2001:db8::%d]:4000"), Defaults.Hub + 1, false},
		{"many networks", web(Defaults.Hub+1, "[2001:db8:0:%d::5]:4000"), 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, recording(initProcess, tt.p, as(33, process(70, 60, asked(), pipe("p", host.Read)))))
			busy := slices.Contains(r.Gaps, host.Gap{PID: 60, What: "connections", Why: "not considered: it has accepted those of more than 16 hosts, and which of them is meant cannot be told"})
			if len(r.Previous) != tt.named || busy != tt.busy {
				t.Errorf("%d hosts are named, want %d; gaps %+v", len(r.Previous), tt.named, r.Gaps)
			}
		})
	}
}

// A FIFO that was opened for reading and writing is taken to be written to where another reads it.
func TestFIFOReadWrite(t *testing.T) {
	w, rw, r := fifo("/run/log", host.Write), fifo("/run/log", host.ReadWrite), fifo("/run/log", host.Read)
	bob := as(1001, process(60, 1, in(22, other), w))
	tests := []struct {
		name string
		ps   []host.Process
		want []string
	}{
		{"beside its reader", []host.Process{bob, as(1000, process(70, 1, asked(), rw)), as(101, process(40, 1, r))}, none},
		{"beside one that reads and writes as well", []host.Process{bob, as(1000, process(70, 1, asked(), rw)), as(101, process(40, 1, rw))}, none},
		{"as the only reader", []host.Process{bob, as(1000, process(70, 1, asked(), rw))}, []string{other + " inbound"}},
		{"for reading alone, beside a service", []host.Process{bob, as(1000, process(70, 1, asked(), r)), as(101, process(40, 1, r))}, none},
		{"for reading alone, beside a service that listens to the user as well", []host.Process{bob, as(1000, process(61, 1, in(8888, attacker), w)),
			as(1000, process(70, 1, asked(), r)), as(101, process(40, 1, r))}, []string{attacker + " inbound"}},
		{"by two users' processes, of which one left it to the other", []host.Process{bob, process(40, 1, r), as(1000, process(70, 40, asked(), r))}, []string{other + " inbound"}},
		{"by the user who writes", []host.Process{as(1000, process(60, 1, in(8888, attacker), w)), as(1000, process(70, 1, asked(), rw)), as(101, process(40, 1, rw))},
			[]string{attacker + " inbound"}},
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

// Where nobody is behind a connection, the report says which ways nothing was kept of.
func TestOrigin(t *testing.T) {
	c1, s1 := unix("one", "/run/service")
	c2, s2 := unix("two", "/run/service")
	const (
		unkept = ": the system does not keep who sends to a socket that is not connected"
		origin = " origin: the first process started or adopted it, and on whose request is not kept"
		apart  = " what its clients say to each other: not considered: the service and these clients are not of one user and control group, and what it passes on is not kept"
	)
	tests := []struct {
		name string
		ps   []host.Process
		want []string
	}{
		{"a child of the first process", []host.Process{as(1000, process(60, 1)), as(1000, process(70, 60, asked()))}, []string{"60" + origin}},
		{"somebody's", []host.Process{as(1000, process(60, 1, in(22, attacker))), as(1000, process(70, 60, asked()))}, none},
		{"a parent outside", []host.Process{as(1000, process(70, 0, asked()))}, none},
		{"clients of another user's service", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1, s2)), as(1000, process(71, 1, in(8888, other), c2))},
			[]string{"70" + origin, "60" + apart}},
		{"a client of one's own service that is another user's", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1000, process(60, 1, s1, s2)), as(1001, process(71, 1, in(8888, other), c2))},
			[]string{"70" + origin, "60" + apart}},
		{"datagrams that anybody may have sent", []host.Process{as(1000, process(70, 1, asked(), heard(host.UDP, loopback, "u"),
			host.Descriptor{Kind: host.Unix, Type: "dgram", Object: "d", Path: "/tmp/d"}, netlink("packet")))},
			[]string{"70 senders to descriptor 1" + unkept, "70 senders to descriptor 2" + unkept, "70 senders to descriptor 3" + unkept, "70" + origin}},
		{"datagrams beside a client", []host.Process{as(1000, process(70, 1, asked(), heard(host.UDP, loopback, "u"), listen(8080), in(8080, third)))}, []string{"70 senders to descriptor 1" + unkept}},
		{"datagrams beside who has logged in", []host.Process{as(1000, process(70, 1, asked(), heard(host.UDP, loopback, "u"), in(22, attacker)))}, none},
		{"datagrams from an address that nobody has", []host.Process{as(1000, process(70, 1, asked(),
			host.Descriptor{Kind: host.UDP, Object: "u", Local: netip.AddrPortFrom(loopback, 53), Remote: netip.AddrPortFrom(loopback, 54)}))},
			[]string{"70 senders to descriptor 1: nobody has the address that it hears from: who had it is not kept", "70" + origin}},
		{"a FIFO that nobody else has open", []host.Process{as(1000, process(70, 1, asked(), fifo("f", host.ReadWrite)))},
			[]string{"70 writers to descriptor 1: no other process has it open for writing: who has written to it and closed it is not kept", "70" + origin}},
		{"a FIFO that is only written to", []host.Process{as(1000, process(70, 1, asked(), fifo("f", host.Write)))}, []string{"70" + origin}},
		{"another host by UDP", []host.Process{as(1000, process(70, 1, asked(), pipe("p", host.Read))), as(1000, process(60, 1, pipe("p", host.Write),
			host.Descriptor{Kind: host.UDP, Object: "u", Local: netip.AddrPortFrom(own, 53), Remote: netip.MustParseAddrPort(attacker)}))},
			[]string{"60 other end of descriptor 1: it speaks with " + attacker + " by UDP: hosts are asked about TCP connections alone", "70" + origin}},
		{"a FIFO that a service reads as well", []host.Process{as(1001, process(60, 1, in(22, other), fifo("f", host.Write))), as(101, process(40, 1, fifo("f", host.Read))),
			as(1000, process(70, 1, asked(), fifo("f", host.Read)))},
			[]string{"70 writers to descriptor 1: not considered: others' processes read it as well, and what each of them was told is not kept", "70" + origin}},
		{"one's own service, with a client on another host and another user's here", []host.Process{as(1000, process(70, 1, asked(), c1)),
			as(1000, process(60, 1, s1, s2, listen(8080), in(8080, third))), as(1001, process(71, 1, in(8888, other), c2))}, []string{"60" + apart}},
		{"a service without other clients", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1))}, []string{"70" + origin}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, recording(append(tt.ps, initProcess)...))
			got := none
			for _, g := range r.Gaps {
				got = append(got, fmt.Sprintf("%d %s: %s", g.PID, g.What, g.Why))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("gaps (-want +got):\n%s", d)
			}
		})
	}
}

// began puts a process into a session.
func began(session int, p host.Process) host.Process {
	p.Session = &session
	return p
}

// heard is a socket that is not connected.
func heard(kind host.Kind, at netip.Addr, object string) host.Descriptor {
	return host.Descriptor{Kind: kind, Object: host.Object(object), Local: netip.AddrPortFrom(at, 5000)}
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
		{"one's own service, with a client on another host and one here", []host.Process{as(1000, process(70, 1, asked(), c1)),
			as(1000, process(60, 1, s1, s2, listen(8080), in(8080, other))), as(1000, process(71, 1, in(8888, attacker), c2))}, []string{other + " inbound", attacker + " inbound"}},
		{"clients of a service on other hosts", []host.Process{as(1000, process(70, 1, asked(), t1)), as(105, process(60, 1, u1, listen(8080), in(8080, other), in(8080, third)))}, none},
		{"clients of a user's own service on other hosts", []host.Process{as(1000, process(70, 1, asked(), t1)), as(1000, process(60, 1, u1, listen(8080), in(8080, attacker)))}, []string{attacker + " inbound"}},
		{"root's service", []host.Process{within("/session-3", process(70, 1, asked(), c1)), within("/session-4", process(71, 1, in(80, other), c2)),
			within("/sssd.service", process(60, 1, s1, s2))}, none},
		{"root's own relay", []host.Process{within("/session-3", process(70, 1, asked(), c1)), within("/session-3", process(71, 1, in(8888, attacker), c2)),
			within("/session-3", process(60, 1, s1, s2))}, []string{attacker + " inbound"}},
		{"the connection by which another user has the service", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1, s2, in(22, other)))}, none},
		{"a connection behind another user's service", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(60, 1, s1, s2, up)), process(61, 1, down, in(80, other))}, none},
		{"the connection by which the user has the service", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1000, process(60, 1, s1, s2, in(22, attacker)))}, []string{attacker + " inbound"}},
		{"a connection behind the user's own service", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1000, process(60, 1, s1, s2, up)), as(1000, process(61, 1, down, in(80, attacker)))}, []string{attacker + " inbound"}},
		{"a log that a service for other hosts keeps", []host.Process{as(1000, process(50, 1, in(22, attacker))), as(1000, process(70, 50, asked(), fifo("f", host.Write))),
			as(101, process(40, 1, fifo("f", host.Read), listen(514), in(514, other)))}, []string{attacker + " inbound"}},
		{"a FIFO to another user who has one connection", []host.Process{as(1000, process(70, 1, asked(), fifo("f", host.Write))),
			as(1001, process(40, 1, fifo("f", host.Read), in(8888, attacker)))}, []string{attacker + " inbound"}},
		{"a user's own relay", []host.Process{as(1000, process(70, 1, asked(), c1)), as(1000, process(71, 1, in(8888, attacker), c2)), as(1000, process(60, 1, s1, s2))}, []string{attacker + " inbound"}},
		{"the administrator who works as the service's user", []host.Process{as(1000, process(70, 1, asked(), c1)), as(105, process(71, 1, in(22, other), c2)), as(105, process(60, 1, s1, s2))}, none},
		{"who works as the service's user, and a client of another", []host.Process{as(105, process(70, 1, asked(), c1)), as(1001, process(71, 1, in(22, other), c2)), as(105, process(60, 1, s1, s2))}, none},
		{"the user's other session on the user's message bus", []host.Process{as(1000, process(50, 1, in(22, attacker))), as(1000, process(70, 50, asked(), c1)),
			as(1000, process(71, 1, in(22, other), c2)), as(1000, process(60, 1, s1, s2))}, []string{attacker + " inbound"}},
		{"connections out of a user's other programs on the user's message bus", []host.Process{as(1000, process(70, 1, asked(), c1)),
			as(1000, process(71, 1, out(41000, other, "other"), c2)), as(1000, process(60, 1, s1, s2))}, none},
		{"the user's other session on the user's display", []host.Process{as(1000, within("/session-1", process(70, 1, asked(), c1))),
			as(1000, within("/session-2", process(71, 1, in(22, other), c2))), as(1000, within("/session-1", process(60, 1, s1, s2)))}, none},
		{"a user's own relay in one session", []host.Process{as(1000, within("/session-1", process(70, 1, asked(), c1))),
			as(1000, within("/session-1", process(71, 1, in(8888, attacker), c2))), as(1000, within("/session-1", process(60, 1, s1, s2)))}, []string{attacker + " inbound"}},
		{"another who writes to the terminal, which two processes have", []host.Process{as(1000, process(70, 1, asked(), slave)), as(1000, process(60, 1, master, up)),
			process(50, 1, in(22, attacker), master, down), as(1000, process(65, 1, slave, pipe("p", host.Read))), as(1001, process(66, 1, in(80, other), pipe("p", host.Write)))},
			[]string{attacker + " inbound"}},
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
		q.Daemon = []int{daemon}
		why := map[int]string{60: ": the daemon itself"}[daemon]
		all := summary{Previous: want, Channels: []string{"tcp 70 ?, 60 ?" + why}}
		if d := cmp.Diff(all, summarize(runSnapshot(t, h, q), all)); d != "" {
			t.Errorf("daemon %d (-want +got):\n%s", daemon, d)
		}
	}
}
