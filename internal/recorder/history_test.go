package recorder

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func fork(pid, parent uint32, at uint64) Event {
	return Event{Kind: Forked, At: at, Process: Process{ID: ID{pid, at}, Parent: ID{parent, uint64(parent)}}}
}

func exit(pid uint32, start, at uint64) Event {
	return Event{Kind: Exited, At: at, Process: Process{ID: ID{pid, start}}}
}

var (
	here  = netip.MustParseAddrPort("192.0.2.1:22")
	there = netip.MustParseAddrPort("198.51.100.7:50000")
)

func opened(cookie, at uint64) Event {
	return Event{Kind: Established, At: at, Connection: Connection{Cookie: cookie, Local: here, Remote: there, NetNS: 1, Direction: Inbound}}
}

func closed(cookie, at uint64) Event {
	return Event{Kind: Closed, At: at, Connection: Connection{Cookie: cookie}}
}

// inUse returns the memory that the program uses.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemory(t *testing.T) {
	for _, memory := range []int{Smallest, Smallest + 12345, 16 << 20} {
		before := inUse()
		h, err := New(memory, 0)
		if err != nil {
			t.Fatal(err)
		}
		made := inUse() - before
		// The allocator rounds up to its own sizes: to pages of 8 KiB for each of some thirty tables.
		if made > uint64(memory)+32*8192 || made < uint64(memory)*9/10 {
			t.Errorf("a history of %d octets has %d", memory, made)
		}
		fill(h, 3*h.Fill().Room)
		if grown := int(inUse()-before) - int(made); grown > 64<<10 {
			t.Errorf("a history of %d octets grew by %d", memory, grown)
		}
	}
	if _, err := New(Smallest-1, 0); err == nil {
		t.Error("a history was made of too little")
	}
}

// TestMillion holds P7: 256 MiB are enough for a million connections and a million processes.
func TestMillion(t *testing.T) {
	if n := room(256 << 20); n < 1_000_000 {
		t.Errorf("256 MiB have room for %d", n)
	}
}

// fill has so many processes and connections come and go.
func fill(h *History, n int) {
	for i := range n {
		at, pid := uint64(10*i+10), uint32(i%30000+2)
		p := Process{ID: ID{pid, at}, Parent: ID{1, 1}, Name: []byte("process"), Exe: fmt.Appendf(nil, "/usr/bin/program%d", i%500)}
		c := Connection{Cookie: uint64(i + 1), Local: here, Remote: netip.AddrPortFrom(there.Addr(), uint16(i)), NetNS: 1, Direction: Inbound}
		h.Apply(
			Event{Kind: Forked, At: at, Process: p},
			Event{Kind: Executed, At: at + 1, Process: p},
			Event{Kind: Established, At: at + 2, Connection: c},
			Event{Kind: Touched, At: at + 3, Process: p, Connection: c},
			Event{Kind: Closed, At: at + 4, Connection: c},
			Event{Kind: Exited, At: at + 5, Process: p})
	}
}

// BenchmarkMillion reports what P7 asks for: the memory of a million connections and processes remembered, and what one
// of each takes from its beginning to its end.
func BenchmarkMillion(b *testing.B) {
	before := inUse()
	h, err := New(256<<20, 0)
	if err != nil {
		b.Fatal(err)
	}
	fill(h, 1_000_000)
	for i := range 1_000_000 {
		if _, ok := h.ByCookie(uint64(i+1), 1<<63); !ok {
			b.Fatalf("connection %d is not remembered", i)
		}
	}
	if ls := h.Losses(0, 1<<63); len(ls) != 0 {
		b.Fatalf("lost: %+v", ls)
	}
	made := inUse() - before
	b.ResetTimer()
	fill(h, b.N)
	b.ReportMetric(float64(made)/(1<<20), "MiB")
	runtime.KeepAlive(h)
}

// TestOthersLeaveFirst: whoever made a process that is still there is remembered longer than those who made nobody.
func TestOthersLeaveFirst(t *testing.T) {
	h := small(10)
	h.Apply(fork(2, 1, 2), fork(3, 2, 3), exit(2, 2, 4)) // 3 is left behind
	for i := range uint64(1000) {
		h.Apply(fork(100, 1, 10+2*i), exit(100, 10+2*i, 11+2*i))
	}
	p, ok := h.Process(2, 2, 2)
	if !ok || p.Exited != 4 {
		t.Fatalf("the parent of a process that is alive is %+v, %v", p, ok)
	}
	h.Forget(1 << 62)
	if _, ok := h.Process(2, 2, 2); !ok {
		t.Error("it is forgotten when all others are")
	}
	if _, ok := h.Process(100, 0, 1<<62); ok {
		t.Error("others are not forgotten")
	}
	h.Apply(exit(3, 3, 1<<61))
	h.Forget(1 << 62)
	h.Forget(1 << 62)
	if _, ok := h.Process(2, 2, 2); ok {
		t.Error("it is not forgotten when its child is")
	}
}

// TestLeftBehindByAll: even where all that ended made somebody who is remembered there is a place for what is new.
func TestLeftBehindByAll(t *testing.T) {
	h := small(20)
	for i := range uint32(1000) { // each made by the one before, which ends
		h.Apply(Event{Kind: Forked, At: uint64(10 * i), Process: Process{ID: ID{i + 2, uint64(10 * i)}, Parent: ID{i + 1, uint64(10*i) - 10}}})
		if i > 0 {
			h.Apply(exit(i+1, uint64(10*i)-10, uint64(10*i+1)))
		}
	}
	if p, ok := h.Process(1001, 0, 1<<62); !ok || p.Exited != 0 {
		t.Errorf("the last is %+v, %v", p, ok)
	}
}

func TestForget(t *testing.T) {
	h := small(10)
	h.Apply(opened(1, 10), opened(2, 20), closed(1, 30), closed(2, 40), opened(3, 50))
	latest := func(by uint64) uint64 {
		c, _ := h.Latest(here, there, 1, by)
		return c.Cookie
	}
	if got, want := []uint64{latest(9), latest(10), latest(25), latest(60)}, []uint64{0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("the latest connections are %v, not %v", got, want)
	}
	h.Forget(40)
	if got, want := []uint64{latest(15), latest(25), latest(60)}, []uint64{0, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("once those closed before 40 are forgotten, the latest are %v, not %v", got, want)
	}
	if got := h.Losses(31, 100); got != nil {
		t.Errorf("after the last forgotten is lost: %+v", got)
	}
	if d := gocmp.Diff([]Loss{{Forgotten, 0, 30}}, h.Losses(30, 100)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
}

func TestLosses(t *testing.T) {
	h, err := New(Smallest, 100)
	if err != nil {
		t.Fatal(err)
	}
	h.Lost(2e9, 3e9)
	h.Lost(3e9, 4e9)
	h.Lost(6e9, 7e9)
	for _, c := range []struct {
		from, to uint64
		want     []Loss
	}{
		{0, 50, []Loss{{Start, 0, 100}}},
		{100, 1e9, nil},
		{100, 2e9, []Loss{{Ring, 2e9, 4e9}}},
		{45e8, 5e9, nil},
		{4e9, 6e9, []Loss{{Ring, 2e9, 4e9}, {Ring, 6e9, 7e9}}},
		{8e9, 9e9, nil},
	} {
		if d := gocmp.Diff(c.want, h.Losses(c.from, c.to)); d != "" {
			t.Errorf("losses of %d to %d (-want +got):\n%s", c.from, c.to, d)
		}
	}
	for i := range uint64(1000) {
		h.Lost(i*10e9, i*10e9+200)
	}
	if n := len(h.Losses(100, 1<<62)); n != maxLosses {
		t.Errorf("%d losses are kept", n)
	}
	for i := range uint64(1000) {
		if h.Losses(i*10e9+100, i*10e9+100) == nil {
			t.Errorf("loss %d is no more", i)
		}
	}
}

// TestFull: what is open does not leave, and what has no place is a loss.
func TestFull(t *testing.T) {
	h := small(3)
	for i := range uint64(5) {
		h.Apply(opened(i+1, 1e10*(i+1)), fork(uint32(i+2), 1, 1e10*(i+1)))
	}
	for i := range uint64(5) {
		_, c := h.ByCookie(i+1, 1<<63)
		_, p := h.Process(uint32(i+2), 0, 1<<62)
		if lost := h.Losses(1e10*(i+1), 1e10*(i+1)) != nil; c == lost || p == lost {
			t.Errorf("of number %d the connection is remembered: %v, the process: %v, a loss: %v", i, c, p, lost)
		}
	}
	h.Apply(closed(1, 7e10), exit(2, 1e10, 7e10), opened(9, 8e10), fork(9, 1, 8e10))
	if _, ok := h.ByCookie(9, 1<<63); !ok {
		t.Error("a place that is free again is not used for a connection")
	}
	if _, ok := h.Process(9, 0, 1<<62); !ok {
		t.Error("a place that is free again is not used for a process")
	}
}

// TestPaths: a path is kept as long as a process has it, and unknown where there is no place.
func TestPaths(t *testing.T) {
	h := small(1000)
	h.paths = newPaths(2, h.seed)
	exe := func(pid uint32) string {
		p, _ := h.Process(pid, 0, 1<<62)
		return string(p.Exe)
	}
	run := func(pid uint32, path string) {
		e := fork(pid, 1, uint64(pid))
		h.Apply(e)
		e.Kind, e.Process.Exe = Executed, []byte(path)
		h.Apply(e)
	}
	long := fmt.Sprintf("/%0*d", MaxPath, 0)
	run(2, "/a")
	run(3, "/b")
	run(4, "/c")
	run(5, long)
	h.Apply(fork(6, 3, 6)) // as its parent
	if got, want := []string{exe(2), exe(3), exe(4), exe(5), exe(6)}, []string{"/a", "/b", "", "", "/b"}; !slices.Equal(got, want) {
		t.Errorf("paths are %q, not %q", got, want)
	}
	run(2, long[1:]) // the longest; it was fork's second, which changes nothing
	h.Apply(exit(3, 3, 100))
	h.Forget(200)
	run(7, "/c")
	h.Apply(exit(2, 2, 300))
	h.Forget(400)
	run(8, "/d")
	if got, want := []string{exe(6), exe(7), exe(8)}, []string{"/b", "", "/d"}; !slices.Equal(got, want) {
		t.Errorf("paths are %q, not %q", got, want)
	}
}

// TestHeldThen: what a process held at one time is found whatever else it held since.
func TestHeldThen(t *testing.T) {
	h, err := New(Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	relay := Process{ID: ID{7, 1}}
	hold := func(cookie, at uint64, d Direction) {
		c := Connection{Cookie: cookie, Local: here, Remote: netip.AddrPortFrom(there.Addr(), uint16(cookie)), NetNS: 1, Direction: d}
		h.Apply(Event{Kind: Established, At: at, Connection: c}, Event{Kind: Touched, At: at, Process: relay, Connection: c})
	}
	hold(1, 10, Inbound)
	for i := range uint64(500) {
		hold(2+2*i, 20+i, Outbound) // which stay
		hold(3+2*i, 20+i, Inbound)
		h.Apply(closed(3+2*i, 20+i))
	}
	h.Apply(closed(1, 1000))
	for _, at := range []uint64{15, 600, 1000} {
		if held, more := h.Held(relay.ID, at, at, false, 3); len(held) != 1 || held[0].Cookie != 1 || more {
			t.Errorf("at %d it held %+v, and that there were more is %v", at, held, more)
		}
	}
	if held, more := h.Held(relay.ID, 30, 30, false, 3); len(held) != 2 || more {
		t.Errorf("it held %+v with one that came and went, and that there were more is %v", held, more)
	}
	if held, more := h.Held(relay.ID, 0, 2000, true, 3); len(held) != 3 || !more || held[0].Cookie != 1000 {
		t.Errorf("the last that it opened are %+v, and that there were more is %v", held, more)
	}
	if held, _ := h.Held(relay.ID, 1001, 2000, false, 3); len(held) != 0 {
		t.Errorf("after the end it held %+v", held)
	}
}

// TestEstablishedLost: where a connection ends that had octets and of which it is not known that it was established, that event was lost; one that was refused had none.
func TestEstablishedLost(t *testing.T) {
	h, err := New(Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	id := ID{5, 10}
	h.Apply(Event{Kind: Touched, At: 2, Process: Process{ID: id}, Connection: Connection{Cookie: 3}})
	h.Sweep(5)
	h.Swept(6)
	h.Apply(Event{Kind: Closed, At: 7, Connection: Connection{Cookie: 3, Sent: 1}})
	if ls := h.Losses(0, 100); len(ls) != 0 {
		t.Errorf("of one that may have been there before: %+v", ls)
	}
	h.Apply(Event{Kind: Connecting, At: 20, Process: Process{ID: id}, Connection: Connection{Cookie: 1}},
		Event{Kind: Closed, At: 30, Connection: Connection{Cookie: 1}})
	if ls := h.Losses(0, 100); len(ls) != 0 {
		t.Errorf("of one that was refused: %+v", ls)
	}
	h.Apply(Event{Kind: Touched, At: 40, Process: Process{ID: id}, Connection: Connection{Cookie: 2}},
		Event{Kind: Closed, At: 50, Connection: Connection{Cookie: 2, Received: 1}})
	if ls := h.Losses(0, 100); len(ls) != 1 || ls[0] != (Loss{Ring, 40, 50}) {
		t.Errorf("of one that had an octet: %+v", ls)
	}
	if n := h.Fill().Missing; n != 1 {
		t.Errorf("%d are missing", n)
	}
}

// TestMissed: what had no place is missed once there is one again, and once.
func TestMissed(t *testing.T) {
	h := small(2)
	fork := func(pid uint32) {
		h.Apply(Event{Kind: Forked, At: uint64(pid), Process: Process{ID: ID{pid, uint64(pid)}}})
	}
	fork(1)
	fork(2)
	if h.Missed() {
		t.Error("nothing is missing")
	}
	fork(3)
	if h.Missed() {
		t.Error("there is no place for it")
	}
	h.Apply(Event{Kind: Exited, At: 4, Process: Process{ID: ID{1, 1}}})
	if !h.Missed() {
		t.Error("there is a place")
	}
	if h.Missed() {
		t.Error("it is said twice")
	}
}

// TestUnheld: a connection of which nobody is known to have held it is told of where it may have been open.
func TestUnheld(t *testing.T) {
	h := small(20)
	h.Apply(opened(1, 10), Event{Kind: Closed, At: 20, Process: Process{ID: ID{5, 1}}, Connection: Connection{Cookie: 1}}) // held
	out := opened(2, 10)
	out.Connection.Direction = Outbound
	h.Apply(out, closed(2, 20))
	if h.Unheld(0, 1<<62, true) {
		t.Error("one that was held, and one that this host opened, may have been others'")
	}
	h.Apply(opened(3, 30), closed(3, 40), opened(4, 50))
	for _, c := range []struct {
		from, to uint64
		over, is bool // of those that are over, and of all
	}{{0, 29, false, false}, {0, 30, true, true}, {40, 45, true, true}, {41, 49, false, false}, {41, 50, false, true}, {60, 70, false, true}} {
		if over, is := h.Unheld(c.from, c.to, false), h.Unheld(c.from, c.to, true); over != c.over || is != c.is {
			t.Errorf("between %d and %d: %v, %v", c.from, c.to, over, is)
		}
	}
}
