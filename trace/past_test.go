package trace

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// second is a time of these tests.
func second(n int) time.Time { return time.Unix(int64(n), 0).UTC() }

// was is what is remembered of a process from one second to another; 0 is alive.
func was(pid, parent, from, to int, held ...host.Socket) host.Remembered {
	p := process(pid, parent)
	p.Start = second(from)
	if to != 0 {
		p.Exited = new(second(to))
	}
	return host.Remembered{Process: p, Parent: host.ID{PID: parent, Start: uint64(1000 + parent)}, Held: held}
}

// came is a connection from another host, from one second to another.
func came(remote string, from, to int) host.Socket {
	s := host.Socket{Protocol: host.TCP, Local: netip.AddrPortFrom(own, 22), Remote: netip.MustParseAddrPort(remote), State: "CLOSED",
		Direction: host.Inbound, DirectionSource: host.FromRecorder, Object: host.Object("recalled:" + remote), Opened: second(from), Recalled: true}
	if to != 0 {
		s.Closed = second(to)
	}
	return s
}

func TestPast(t *testing.T) {
	const attacker, innocent = "203.0.113.1:1025", "203.0.113.2:1026"
	outbound := came(innocent, 1, 90)
	outbound.Direction = host.Outbound
	lossy := was(90, 80, 20, 30)
	lossy.Gaps = []host.Gap{{PID: 90, What: "the past", Why: "events were lost"}}
	left := process(100, 1, asked()) // which init has adopted
	for _, tt := range []struct {
		name      string
		processes []host.Process
		past      []host.Remembered
		opened    int
		previous  []string
		gap       string   // that there has to be, or not
		by        []string // how the processes were found, of the first ones
	}{
		{name: "the login is over", processes: []host.Process{left},
			past:     []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 31), was(80, 70, 10, 40, came(attacker, 9, 40))},
			previous: []string{attacker}, by: []string{ByOwner, ByRecordedParent, ByRecordedParent}},
		{name: "it was closed before the child was made", processes: []host.Process{left},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 31, came(attacker, 21, 29))}},
		{name: "it was opened after the child was made", processes: []host.Process{left},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 90, came(attacker, 31, 40))}},
		{name: "the nearest", processes: []host.Process{left},
			past:     []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 40, came(attacker, 21, 39)), was(80, 70, 10, 40, came(innocent, 9, 40))},
			previous: []string{attacker}},
		{name: "of two hosts", processes: []host.Process{left},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 40, came(attacker, 21, 39), came(innocent, 22, 38))},
			gap:  "of 2 hosts"},
		{name: "several of one host", processes: []host.Process{left},
			past:     []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 40, came(attacker, 21, 39), came("203.0.113.1:1027", 22, 38), came(innocent, 1, 3))},
			previous: []string{attacker, "203.0.113.1:1027"}},
		{name: "it was this host's own", processes: []host.Process{left},
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 40, outbound, came("198.51.100.2:1028", 1, 90))}},
		{name: "opened by the shell itself", processes: []host.Process{left}, opened: 31,
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 1, 20, 40, outbound)}, gap: "opened those with 203.0.113.2 itself"},
		{name: "opened by the shell itself, before", processes: []host.Process{left}, opened: 91,
			past: []host.Remembered{was(100, 90, 30, 0), was(90, 1, 20, 40, outbound)}, gap: "!opened those"},
		{name: "held as the connection was established", processes: []host.Process{left},
			past:   []host.Remembered{was(100, 1, 30, 0, came(attacker, 35, 50), came(innocent, 31, 34))},
			opened: 40, previous: []string{attacker}},
		{name: "what is open explains it", processes: []host.Process{process(100, 1, asked(), in(2222, innocent))},
			past:     []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 40, came(attacker, 21, 39))},
			previous: []string{innocent}},
		{name: "losses", processes: []host.Process{left}, past: []host.Remembered{was(100, 90, 30, 0), lossy}, gap: "events were lost"},
		{name: "losses that do not matter", processes: []host.Process{process(100, 1, asked(), in(2222, innocent))},
			past: []host.Remembered{was(100, 90, 30, 0), lossy}, previous: []string{innocent}, gap: "!events were lost"},
		{name: "the pid was used again", processes: []host.Process{left, func() host.Process {
			p := process(90, 1, in(2222, innocent))
			p.StartTicks = 5000
			return p
		}()},
			past:     []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 31, came(attacker, 9, 40))},
			previous: []string{attacker}, by: []string{ByOwner, ByRecordedParent}},
		{name: "who made it is not remembered", processes: []host.Process{left, func() host.Process {
			p := process(90, 1, in(2222, innocent))
			p.StartTicks = 5000
			return p
		}()},
			past: []host.Remembered{was(100, 90, 30, 0)}, gap: "not remembered"},
		{name: "the listener's other clients", processes: []host.Process{left,
			process(70, 1, listen(22), number(5, pipe("p", host.Read))), process(60, 70, in(22, innocent), number(6, pipe("p", host.Write)))},
			past:     []host.Remembered{was(100, 80, 30, 0), was(80, 70, 10, 40, came(attacker, 9, 40)), was(70, 1, 1, 0)},
			previous: []string{attacker}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(tt.processes...)
			h.Remembered = tt.past
			q := question()
			q.Host = h.Recording.Facts
			if tt.opened != 0 {
				q.Socket.Opened = second(tt.opened)
			}
			r := runSnapshot(t, h, q)
			var got []string
			for _, p := range r.Previous {
				got = append(got, p.Remote.String())
				if past := slices.Contains(p.Reasons, ReasonRecorded); past == slices.Contains(p.Reasons, ReasonInbound) || !p.Corroborated {
					t.Errorf("%v is named for %v, corroborated %v", p.Remote, p.Reasons, p.Corroborated)
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.previous, got); d != "" {
				t.Errorf("previous hosts (-want +got):\n%s", d)
			}
			want := !strings.HasPrefix(tt.gap, "!")
			if has := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, strings.TrimPrefix(tt.gap, "!")) }); tt.gap != "" && has != want {
				t.Errorf("gaps are %+v, want %q", r.Gaps, tt.gap)
			}
			for i, by := range tt.by {
				if i >= len(r.Processes) || r.Processes[i].Via.By != by || (r.Processes[i].Exited == nil) != (by == ByOwner) {
					t.Errorf("process %d is not found by %s: %+v", i, by, r.Processes)
				}
			}
		})
	}
}

// TestClosed: who held a connection that is closed is its owner, living or not.
func TestClosed(t *testing.T) {
	const attacker = "203.0.113.1:1025"
	h := recording(process(100, 1))
	asked := came(victim.String(), 30, 50)
	asked.Direction, asked.Local = host.Outbound, question().Socket.Local
	h.Sockets = []host.Socket{asked}
	h.Remembered = []host.Remembered{*of(1001, new(was(100, 1, 20, 0, asked))), *of(1001, new(was(95, 90, 25, 60, asked))), was(90, 80, 10, 60, came(attacker, 9, 61))}
	s, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: asked.Local, Remote: asked.Remote})
	if err != nil || !s.Recalled {
		t.Fatalf("found %+v, %v", s, err)
	}
	r := runSnapshot(t, h, Question{Socket: s, Host: h.Recording.Facts})
	if d := cmp.Diff([]int{100, 95}, r.Owners); d != "" {
		t.Errorf("owners (-want +got):\n%s", d)
	}
	if len(r.Previous) != 1 || r.Previous[0].Remote.String() != attacker {
		t.Errorf("previous hosts: %+v", r.Previous)
	}
	if len(r.Gaps) > 0 && slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return g.What == "descriptors" || g.What == "owners" }) {
		t.Errorf("gaps: %+v", r.Gaps)
	}
}

// TestPastOfLogin: what the system knows of a login and what is remembered of its connection are one candidate, which can be asked.
func TestPastOfLogin(t *testing.T) {
	for _, known := range []string{"203.0.113.1:0", "203.0.113.1:1025"} {
		left := process(100, 1, asked())
		left.AuditSession = new(uint32(7))
		h := recording(left)
		h.Remembered = []host.Remembered{was(100, 90, 30, 0), was(90, 80, 20, 31, came("203.0.113.1:1025", 9, 40))}
		h.Logins = []host.Login{{Source: host.LoginAudit, Remote: netip.MustParseAddrPort(known), Time: second(9), Audit: new(uint32(7))}}
		r := run(t, h)
		if len(r.Previous) != 1 {
			t.Fatalf("with a login from %s the previous hosts are %+v", known, r.Previous)
		}
		p := r.Previous[0]
		if p.Remote.String() != "203.0.113.1:1025" || p.Local != netip.AddrPortFrom(own, 22) || !slices.Equal(p.Reasons, []string{ReasonAuditSession, ReasonRecorded}) {
			t.Errorf("with a login from %s it is %+v", known, p)
		}
	}
}
