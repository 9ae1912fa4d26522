package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A changing host shows other things at the second look than at the first, or nothing at all.
type changing struct {
	host.Snapshot
	holders func(o host.Object, hs []host.Holder) ([]host.Holder, error)
	process func(p host.Process) (host.Process, error)
	peers   error
	logins  error
	gaps    []host.Gap
}

func (c changing) Holders(ctx context.Context, o host.Object) ([]host.Holder, error) {
	hs, err := c.Snapshot.Holders(ctx, o)
	if c.holders == nil || err != nil {
		return hs, err
	}
	return c.holders(o, hs)
}

func (c changing) Process(ctx context.Context, pid int) (host.Process, error) {
	p, err := c.Snapshot.Process(ctx, pid)
	if c.process == nil || err != nil {
		return p, err
	}
	return c.process(p)
}

func (c changing) Peers(ctx context.Context, o host.Object) ([]host.Object, error) {
	if c.peers != nil {
		return nil, c.peers
	}
	return c.Snapshot.Peers(ctx, o)
}

func (c changing) Logins(ctx context.Context) ([]host.Login, error) {
	if c.logins != nil {
		return nil, c.logins
	}
	return c.Snapshot.Logins(ctx)
}

func (c changing) Gaps() []host.Gap { return c.gaps }

func TestGaps(t *testing.T) {
	refused := errors.New("permission denied")
	gone := func(pid int) func(p host.Process) (host.Process, error) {
		return func(p host.Process) (host.Process, error) {
			if p.PID == pid {
				p.Descriptors = nil
			}
			return p, nil
		}
	}
	again := func(pid int) func(p host.Process) (host.Process, error) {
		return func(p host.Process) (host.Process, error) {
			if p.PID == pid {
				p.StartTicks++
			}
			return p, nil
		}
	}
	ps := []host.Process{initProcess, process(50, 1, in(8888, attacker), pipe("p", host.Write)), process(70, 1, pipe("p", host.Read), asked())}
	tests := []struct {
		name string
		c    changing
		want summary
	}{
		{"the owner closed it", changing{process: gone(70)},
			summary{Owners: []int{70}, Previous: none, Gaps: []string{"70 descriptors: they changed while the process was looked at"}}},
		{"the owner ended and its pid was used again", changing{process: again(70)},
			summary{Owners: []int{}, Processes: none, Previous: none, Gaps: []string{"70 process: it ended while the host was looked at, and its pid was used again"}}},
		{"the other end closed it", changing{process: gone(50)},
			summary{Owners: []int{70}, Previous: none, Gaps: []string{"50 descriptors: they changed while the process was looked at"}}},
		{"the other end ended and its pid was used again", changing{process: again(50)},
			summary{Processes: []string{"70 primary owner", "1 primary parent 70"}, Previous: none,
				Gaps: []string{"50 process: it ended while the host was looked at, and its pid was used again"}}},
		{"owners are not shown", changing{holders: func(host.Object, []host.Holder) ([]host.Holder, error) { return nil, refused }},
			summary{Owners: []int{}, Gaps: []string{"0 owners: permission denied"}}},
		{"holders are not shown", changing{holders: func(o host.Object, hs []host.Holder) ([]host.Holder, error) {
			if o == "p" {
				return nil, refused
			}
			return hs, nil
		}}, summary{Owners: []int{70}, Previous: none, Gaps: []string{"70 holders of the other end of descriptor 0: permission denied"}}},
		{"peers are not shown", changing{peers: refused},
			summary{Previous: none, Gaps: []string{"70 other end of descriptor 0: permission denied", "70 other end of descriptor 1: permission denied"}}},
		{"a process is not shown", changing{process: func(p host.Process) (host.Process, error) {
			if p.PID == 50 {
				return host.Process{}, refused
			}
			return p, nil
		}}, summary{Previous: none, Gaps: []string{"50 process: permission denied"}}},
		{"utmp", changing{logins: refused}, summary{Previous: []string{attacker + " inbound"}, Gaps: []string{"0 logins: permission denied"}}},
		{"the snapshot's own", changing{gaps: []host.Gap{{PID: 9, What: "descriptors", Why: "permission denied"}}},
			summary{Previous: []string{attacker + " inbound"}, Gaps: []string{"9 descriptors: permission denied"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(ps...)
			snap, err := h.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tt.c.Snapshot = snap
			q := question()
			q.Host = h.Recording.Facts
			if d := cmp.Diff(tt.want, summarize(Run(t.Context(), tt.c, q, Defaults), tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A system that does not tell which object a socket is must not have everybody accused who holds something else
// that it does not tell.
func TestUnknownObject(t *testing.T) {
	nameless := asked()
	nameless.Object = ""
	h := recording(initProcess, process(60, 1, in(22, other), nameless), process(70, 1, nameless))
	q := question()
	q.Socket.Object = ""
	want := summary{Owners: []int{}, Processes: none, Previous: none, Gaps: []string{"0 owners: the object is unknown"}}
	if d := cmp.Diff(want, summarize(runSnapshot(t, h, q), want)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Where start times are unknown, they say nothing.
func TestUnknownStart(t *testing.T) {
	child, parent := process(70, 60, asked()), process(60, 1, in(22, attacker))
	child.StartTicks = 0
	want := summary{Previous: []string{attacker + " inbound"}, Gaps: none}
	if d := cmp.Diff(want, summarize(run(t, recording(initProcess, child, parent)), want)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// manyJoined is processes of which each is joined to the next by a pipe, the first of them the owner.
func manyJoined(n int) *host.Replay {
	ps := []host.Process{initProcess}
	for i := range n {
		ds := []host.Descriptor{pipe(fmt.Sprint("p", i), host.Write), pipe(fmt.Sprint("p", i+1), host.Read)}
		switch i {
		case 0:
			ds[0] = asked()
		case n - 1:
			ds[1] = in(8888, attacker)
		}
		ps = append(ps, process(100+i, 1, ds...))
	}
	return recording(ps...)
}

func TestBounds(t *testing.T) {
	const n = 60
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancelLate()
	tests := []struct {
		name      string
		ctx       context.Context
		o         Options
		processes int
		gap       string
	}{
		{"none", t.Context(), Defaults, n + 1, ""},
		{"just enough", t.Context(), Options{Hub: 16, Processes: n + 2, Descriptors: 2*n + 1}, n + 1, ""},
		{"processes", t.Context(), Options{Hub: 16, Processes: 10, Descriptors: 65536}, 10, "0 trace: bound: 10 processes"},
		{"one process", t.Context(), Options{Hub: 16, Processes: 1, Descriptors: 65536}, 1, "0 trace: bound: 1 processes"},
		{"no process", t.Context(), Options{Hub: 16, Descriptors: 65536}, 0, "0 trace: bound: 0 processes"},
		{"descriptors", t.Context(), Options{Hub: 16, Processes: 512, Descriptors: 20}, 11, "0 trace: bound: 20 descriptors"},
		{"cancelled", ended, Defaults, 0, "0 trace: bound: deadline"},
		{"deadline", late, Defaults, 0, "0 trace: bound: deadline"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := manyJoined(n)
			snap, err := h.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			q := question()
			q.Host = h.Recording.Facts
			r := Run(tt.ctx, snap, q, tt.o)
			if len(r.Processes) != tt.processes {
				t.Errorf("%d processes, want %d", len(r.Processes), tt.processes)
			}
			want := none
			if tt.gap != "" {
				want = []string{tt.gap}
			}
			if d := cmp.Diff(want, summarize(r, summary{Gaps: none}).Gaps); d != "" {
				t.Errorf("gaps (-want +got):\n%s", d)
			}
			if found := len(r.Previous) == 1; found != (tt.gap == "") {
				t.Errorf("previous hosts: %+v", r.Previous)
			}
		})
	}
}

// A deadline that comes in the middle ends the trace there, and what was found until then is in the result.
func TestDeadlineInBetween(t *testing.T) {
	const n = 12
	all := run(t, manyJoined(n))
	for reads := 1; reads < len(all.Processes); reads++ {
		h := manyJoined(n)
		ctx, cancel := context.WithCancel(t.Context())
		snap, err := h.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		left := reads
		c := changing{Snapshot: snap, process: func(p host.Process) (host.Process, error) {
			if left--; left == 0 {
				cancel()
			}
			return p, nil
		}}
		q := question()
		q.Host = h.Recording.Facts
		r := Run(ctx, c, q, Defaults)
		cancel()
		if len(r.Processes) != reads {
			t.Errorf("after %d reads the result has %d processes", reads, len(r.Processes))
		}
		if !slices.Contains(r.Gaps, host.Gap{What: "trace", Why: "bound: deadline"}) {
			t.Errorf("after %d reads the gaps are %+v", reads, r.Gaps)
		}
	}
}

func login(remote, local string) *host.Login {
	return &host.Login{Source: host.LoginEnvironment, Remote: netip.MustParseAddrPort(remote), Local: netip.MustParseAddrPort(local)}
}

func TestLogins(t *testing.T) {
	shell := func(l *host.Login) host.Process {
		p := as(1000, process(70, 60, asked()))
		p.Login, p.TTY = l, "pts/3"
		return p
	}
	session := process(60, 1, in(22, attacker))
	utmp := func(user, line, addr string) host.Login {
		return host.Login{Source: host.LoginUtmp, User: user, Line: line, Host: "a.example", Remote: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}
	}
	tests := []struct {
		name   string
		ps     []host.Process
		logins []host.Login
		want   []string
	}{
		{"the environment agrees", []host.Process{initProcess, session, shell(login(attacker, "192.0.2.2:22"))}, nil,
			[]string{attacker + " inbound,ssh-connection"}},
		{"the environment says otherwise", []host.Process{initProcess, session, shell(login(other, "192.0.2.2:22"))}, nil,
			[]string{attacker + " inbound", other + " ssh-connection uncorroborated"}},
		{"the environment alone", []host.Process{initProcess, process(60, 1), shell(login(attacker, "192.0.2.2:22"))}, nil,
			[]string{attacker + " ssh-connection uncorroborated"}},
		{"a login from this host", []host.Process{initProcess, session, shell(login("127.0.0.1:4000", "127.0.0.1:22"))}, nil,
			[]string{attacker + " inbound"}},
		{"the environment of a process that does not command", []host.Process{initProcess, session,
			func() host.Process {
				p := shell(nil)
				p.Descriptors = append(p.Descriptors, number(7, pipe("log", host.Write)))
				return p
			}(),
			func() host.Process {
				p := process(40, 1, pipe("log", host.Read))
				p.Login = login(other, "192.0.2.2:22")
				return p
			}()}, nil,
			[]string{attacker + " inbound"}},
		{"utmp agrees", []host.Process{initProcess, session, shell(nil)}, []host.Login{utmp("user1000", "pts/3", "203.0.113.5")},
			[]string{attacker + " inbound,utmp"}},
		{"utmp of another terminal or user", []host.Process{initProcess, session, shell(nil)},
			[]host.Login{utmp("user1000", "pts/4", "203.0.113.5"), utmp("user1001", "pts/3", "203.0.113.5")},
			[]string{attacker + " inbound"}},
		{"utmp names a host without a connection", []host.Process{initProcess, session, shell(nil)},
			[]host.Login{utmp("user1000", "pts/3", "203.0.113.77"), utmp("user1000", "pts/3", "127.0.0.1")},
			[]string{attacker + " inbound", "203.0.113.77:0 utmp uncorroborated"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := recording(tt.ps...)
			h.Recording.Logins = tt.logins
			want := summary{Previous: tt.want}
			if d := cmp.Diff(want, summarize(run(t, h), want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	set := as(1000, process(70, 60, asked()))
	set.EUID, set.EUser = new(uint32(0)), "root"
	nobody := process(50, 1)
	nobody.RUID, nobody.EUID = nil, nil
	h := recording(initProcess, nobody, process(60, 50), set)
	h.Recording.Logins = []host.Login{
		{Source: host.LoginUtmp, User: "user1000", Line: "pts/3", Host: "a.example", Remote: netip.MustParseAddrPort("203.0.113.5:0"), Time: at},
		{Source: host.LoginUtmp, User: "somebody", Line: "pts/4", Host: "b.example"},
		{Source: host.LoginUtmp, User: "", Line: "pts/5"},
	}
	want := []User{
		{Name: "user1000", UID: 1000, Logins: []UserLogin{{Line: "pts/3", Host: "a.example", Address: netip.MustParseAddr("203.0.113.5"), Time: at}}},
		{Name: "root", UID: 0},
	}
	if d := cmp.Diff(want, run(t, h).Users, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
