package recorder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var sealed = Seal{Key: bytes.Repeat([]byte{7}, KeySize), Scope: "a boot"}

func kept(t testing.TB, h *History, at uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := h.Keep(&b, sealed, at); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restored is a history with room for so many of each, filled with what was kept.
func restored(t testing.TB, n int, b []byte, now uint64) *History {
	t.Helper()
	h := small(n)
	if err := h.Restore(bytes.NewReader(b), sealed, now); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestKeep: a history that was kept and restored answers as it did, and goes on as it would have.
func TestKeep(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		h, m := small(1000), &model{met: map[any]bool{}}
		w := &world{b: octets(r, 1500), over: map[uint64]uint64{}}
		at := w.run(h, m)
		again := restored(t, 1000, kept(t, h, at), at+10)
		check(t, again, m, at)
		consistent(t, again)
		if d := gocmp.Diff(append(h.Losses(0, 1<<62), Loss{Off, at, at + 10}), again.Losses(0, 1<<62)); d != "" {
			t.Fatalf("losses (-want +got):\n%s", d)
		}
		// What was not established is not kept.
		m.connections = slices.DeleteFunc(m.connections, func(c Connection) bool { return c.Opened == 0 })
		if f := again.Fill(); f.Connections != len(m.connections) || f.Processes != len(m.processes) {
			t.Fatalf("it has %+v, of %d connections and %d processes", f, len(m.connections), len(m.processes))
		}
		w.b = octets(r, 1500)
		at = w.run(again, m)
		check(t, again, m, at)
		consistent(t, again)
	}
}

// TestKeepLosses: losses are kept, and so is what is forgotten first.
func TestKeepLosses(t *testing.T) {
	h := small(3)
	h.losses.begun = 5
	for i := range uint64(6) {
		at := 1e10 * (i + 1)
		h.Apply(opened(i+1, at), closed(i+1, at+1e9), fork(uint32(i+2), 1, at), exit(uint32(i+2), at, at+1e9))
	}
	h.Lost(7e10, 8e10)
	again := restored(t, 3, kept(t, h, 9e10), 20e10)
	want := []Loss{{Start, 0, 5}, {Forgotten, 0, 3.1e10}, {Ring, 7e10, 8e10}, {Off, 9e10, 20e10}}
	if d := gocmp.Diff(want, again.Losses(0, 1<<62)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
	again.Apply(opened(9, 21e10), fork(9, 1, 21e10))
	for i := range uint64(6) {
		_, c := again.ByCookie(i+1, 1<<63)
		_, p := again.Process(uint32(i+2), 0, 1<<62)
		if c != (i > 3) || p != (i > 3) {
			t.Errorf("number %d: the connection is remembered: %v, the process: %v", i, c, p)
		}
	}
}

// TestKeepJoined: what processes had is not kept, and that they had something is.
func TestKeepJoined(t *testing.T) {
	h := small(3)
	pipe := Object{Class: Pipe, Number: 1}
	h.Apply(fork(2, 1, 2), fork(3, 1, 3), Event{Kind: Held, At: 4, Process: Process{ID: ID{2, 2}}, Joints: []Joint{{pipe, pipe, Reads}}}, exit(2, 2, 5), exit(3, 3, 6))
	again := restored(t, 3, kept(t, h, 7), 9)
	if j, more := again.Joined(ID{2, 2}, 9); len(j) > 0 || !more {
		t.Errorf("one that had a pipe: %v, more %v", j, more)
	}
	if _, more := again.Joined(ID{3, 3}, 9); more {
		t.Error("one that had nothing may have had something")
	}
	if d := gocmp.Diff([]Loss{{Unjoined, 0, 7}, {Off, 7, 9}}, again.Losses(2, 9)); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
}

// TestLessRoom: what has no place any more is a loss.
func TestLessRoom(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	missed := 0
	for i := range 100 {
		h := small(1000)
		m, at := both(octets(r, 2000), h)
		again := restored(t, 1+i%30, kept(t, h, at), at+1)
		forgetful(t, again, m, at, &missed)
	}
	if missed == 0 {
		t.Error("nothing was missing")
	}
}

// refused checks that something is not restored, for a reason, and that the history is as new then.
func refused(t testing.TB, what string, r io.Reader, s Seal, why error) {
	t.Helper()
	h := small(20)
	h.losses.begun = 3
	if err := h.Restore(r, s, 100); !errors.Is(err, why) {
		t.Fatalf("%s: %v, not %v", what, err, why)
	}
	if f := h.Fill(); f != (Fill{Room: 20, Begun: 3}) {
		t.Fatalf("%s: the history has %+v", what, f)
	}
	if d := gocmp.Diff([]Loss{{Start, 0, 3}}, h.Losses(0, 200)); d != "" {
		t.Fatalf("%s: losses (-want +got):\n%s", what, d)
	}
	h.Apply(fork(2, 1, 50), opened(1, 50))
	if _, ok := h.Process(2, 50, 50); !ok {
		t.Fatalf("%s: it remembers nothing any more", what)
	}
}

// several is a history that was kept in several pieces, and where in it each piece begins.
func several(t testing.TB) (b []byte, begins []int) {
	t.Helper()
	h := small(3 * places)
	for i := range uint32(2*places + 1) {
		h.Apply(fork(i+2, 1, uint64(i)+1), opened(uint64(i)+1, uint64(i)+1))
	}
	b = kept(t, h, 1e6)
	for at := headerSize; at < len(b); at += 4 + int(binary.BigEndian.Uint32(b[at:])) {
		begins = append(begins, at)
	}
	if len(begins) != 7 {
		t.Fatalf("%d pieces", len(begins))
	}
	return b, append(begins, len(b))
}

// TestRefused: whatever is done to what was kept is noticed.
func TestRefused(t *testing.T) {
	h := small(20)
	h.Apply(fork(2, 1, 5), fork(3, 2, 6), exit(3, 6, 8), opened(1, 7), opened(2, 8), closed(2, 9))
	b := kept(t, h, 10)
	whole := func(b []byte) io.Reader { return bytes.NewReader(b) }
	for i := range b {
		why := ErrAltered
		switch {
		case i == len(sealMagic):
			why = ErrVersion
		case i >= 12 && i < 44:
			why = ErrScope
		}
		for _, x := range []byte{1, 0x80, 0xff} {
			flipped := bytes.Clone(b)
			flipped[i] ^= x
			refused(t, fmt.Sprintf("octet %d flipped by %#x", i, x), whole(flipped), sealed, why)
		}
		refused(t, fmt.Sprintf("cut at %d", i), whole(b[:i]), sealed, ErrAltered)
		refused(t, fmt.Sprintf("without octet %d", i), whole(slices.Delete(bytes.Clone(b), i, i+1)), sealed, why)
	}
	refused(t, "an octet more", whole(append(bytes.Clone(b), 0)), sealed, ErrAltered)
	refused(t, "twice", whole(append(bytes.Clone(b), b...)), sealed, ErrAltered)
	refused(t, "another key", whole(b), Seal{bytes.Repeat([]byte{8}, KeySize), sealed.Scope}, ErrAltered)
	refused(t, "another boot", whole(b), Seal{sealed.Key, "another boot"}, ErrScope)
	none := append(bytes.Clone(b[:headerSize-4]), 0, 0, 0, 0)
	refused(t, "no pieces", whole(none), sealed, ErrAltered)
	failed := errors.New("failed")
	refused(t, "what cannot be read", io.MultiReader(whole(b[:90]), failing{failed}), sealed, failed)
	if again := kept(t, h, 10); bytes.Equal(again[44:76], b[44:76]) {
		t.Error("two have one salt, and so one key")
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// TestPiecesMoved: no piece is taken for another, or for one of another time.
func TestPiecesMoved(t *testing.T) {
	b, at := several(t)
	other, _ := several(t)
	piece := func(i int) []byte { return b[at[i]:at[i+1]] }
	put := func(pieces ...[]byte) io.Reader {
		return bytes.NewReader(slices.Concat(append([][]byte{b[:headerSize]}, pieces...)...))
	}
	all := func() (ps [][]byte) {
		for i := range len(at) - 1 {
			ps = append(ps, piece(i))
		}
		return ps
	}
	big := func(r io.Reader, why error) error {
		h := small(3 * places)
		err := h.Restore(r, sealed, 2e6)
		if !errors.Is(err, why) || err != nil && h.Fill().Processes+h.Fill().Connections != 0 {
			t.Errorf("%v, not %v", err, why)
		}
		return err
	}
	big(put(all()...), nil)
	for i := range all() {
		big(put(slices.Delete(all(), i, i+1)...), ErrAltered)
		big(put(slices.Insert(all(), i, piece(i))...), ErrAltered)
		for j := range i {
			swapped := all()
			swapped[i], swapped[j] = swapped[j], swapped[i]
			big(put(swapped...), ErrAltered)
		}
		mixed := all()
		mixed[i] = other[at[i]:min(at[i+1], len(other))]
		big(put(mixed...), ErrAltered)
	}
}

// TestKeepMeanwhile: events that come while it is kept take away nothing that was there before.
func TestKeepMeanwhile(t *testing.T) {
	const n = 4 * places
	h := small(2 * n)
	for i := range uint32(n) {
		at := uint64(i) + 1
		h.Apply(fork(i+2, 1, at), opened(at, at))
		if i%2 == 0 {
			h.Apply(exit(i+2, at, at+1), closed(at, at+1))
		}
	}
	var busy sync.WaitGroup
	stop := make(chan struct{})
	busy.Go(func() {
		for i := uint64(n); i < 2*n+n/4; i++ { // which takes all the room, and a quarter of those that ended
			select {
			case <-stop:
				return
			default:
			}
			at := i + 1
			h.Apply(fork(uint32(i+2), 1, at), opened(at, at), exit(uint32(i+2), at, at+1), closed(at, at+1))
		}
	})
	b := kept(t, h, n)
	close(stop)
	busy.Wait()
	again := restored(t, 4*n, b, 1e9)
	consistent(t, again)
	var reach uint64
	for _, l := range again.Losses(0, n) {
		if l.Kind == Forgotten {
			reach = l.To
		}
	}
	gone := 0
	for i := range uint32(n) {
		at := uint64(i) + 1
		p, ok := again.Process(i+2, at, at)
		c, ok2 := again.ByCookie(at, 1<<63)
		switch ended := i%2 == 0; {
		case ended && at+1 <= reach:
			gone++
		case !ok || !ok2 || (p.Exited != 0) != ended || (c.Closed != 0) != ended:
			t.Fatalf("number %d, which ended: %v, is %+v, %v and %+v, %v; forgotten is what ended until %d", i, ended, p, ok, c, ok2, reach)
		}
	}
	t.Logf("%d of %d were forgotten meanwhile", gone, n)
}

// TestSweptAfter: what is not there any more ended while nobody looked.
func TestSweptAfter(t *testing.T) {
	h := small(20)
	h.Apply(fork(2, 1, 1), fork(3, 1, 2), opened(1, 3), opened(2, 4))
	again := restored(t, 20, kept(t, h, 5), 100)
	again.Sweep(101)
	again.Apply(Event{Kind: ProcessMet, At: 101, Process: Process{ID: ID{2, 1}, Parent: ID{9, 9}, Exe: []byte("/bin/new")}},
		Event{Kind: ConnectionMet, At: 101, Process: Process{ID: ID{2, 1}}, Connection: Connection{Cookie: 1, Local: here, Remote: there, NetNS: 1}})
	again.Swept(102)
	two, _ := again.Process(2, 1, 1)
	three, _ := again.Process(3, 2, 2)
	if two.Exited != 0 || two.Met || two.Parent != (ID{1, 1}) || string(two.Exe) != "/bin/new" || three.Exited != 102 || !three.Unsure {
		t.Errorf("they are %+v and %+v", two, three)
	}
	one, _ := again.ByCookie(1, 1<<63)
	other, _ := again.ByCookie(2, 1<<63)
	if one.Closed != 0 || one.Met || one.Opened != 3 || !slices.Equal(one.Holders, []ID{{2, 1}}) || other.Closed != 102 || !other.Unsure {
		t.Errorf("they are %+v and %+v", one, other)
	}
}

// FuzzKept: whatever a piece is, it is refused, or is written as it was.
func FuzzKept(f *testing.F) {
	h := small(20)
	both(octets(rand.New(rand.NewPCG(1, 1)), 200), h)
	h.Lost(1, 2)
	f.Add(appendSummary(nil, h.summary(5)))
	f.Add(h.appendConnections(nil, 0))
	f.Add(h.appendProcesses(nil, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSummary(b); err == nil {
			again, err := parseSummary(appendSummary(nil, s))
			if d := gocmp.Diff(s, again, gocmp.AllowUnexported(summary{}, losses{})); d != "" || err != nil {
				t.Errorf("%v:\n%s", err, d)
			}
		}
		again := []byte{keptConnections}
		if parseConnections(b, func(s connection) { again = appendConnection(again, &s) }) == nil && !bytes.Equal(again, b) {
			t.Errorf("%x is written as %x", b, again)
		}
		again = []byte{keptProcesses}
		if parseProcesses(b, func(s process, path []byte) { again = appendProcess(again, &s, s.flags, path) }) == nil && !bytes.Equal(again, b) {
			t.Errorf("%x is written as %x", b, again)
		}
		f := filling{h: small(3)}
		if f.piece(b) == nil {
			f.done(100)
			consistent(t, f.h)
		}
	})
}

// BenchmarkKeep reports what it takes to keep, and to restore, 100,000 connections and as many processes.
func BenchmarkKeep(b *testing.B) {
	const n = 100_000
	h := small(n)
	h.paths = newPaths(pathsFor(n), h.seed)
	r := rand.New(rand.NewPCG(11, 12))
	for i := range uint32(n) {
		at := 1e12 + uint64(i)*17e6 + r.Uint64N(1e6)
		id := ID{1 + i%32768, at}
		local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(32768+r.Uint32N(28000)))
		remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.Uint32())}), 443)
		h.Apply(Event{Kind: Forked, At: at, Process: Process{ID: id, Parent: ID{900, 1e9}, Name: []byte("sh"), LoginUID: 1<<32 - 1, AuditSession: 1<<32 - 1, Session: 900}},
			Event{Kind: Executed, At: at, Process: Process{ID: id, Name: []byte("curl"), Exe: fmt.Appendf(nil, "/usr/bin/program-%d", r.Uint32N(300)), LoginUID: 1<<32 - 1, AuditSession: 1<<32 - 1, Session: 900}},
			Event{Kind: Connecting, At: at, Process: Process{ID: id}, Connection: Connection{Cookie: uint64(i) + 1, UID: 1000}},
			Event{Kind: Established, At: at, Connection: Connection{Cookie: uint64(i) + 1, Local: local, Remote: remote, NetNS: 4026531840}},
			Event{Kind: Closed, At: at + r.Uint64N(1e9), Connection: Connection{Cookie: uint64(i) + 1, Sent: r.Uint64N(1e4), Received: r.Uint64N(1e5)}},
			Event{Kind: Exited, At: at + r.Uint64N(1e9), Process: Process{ID: id, Name: []byte("curl"), LoginUID: 1<<32 - 1, AuditSession: 1<<32 - 1, Session: 900}})
	}
	var last []byte
	b.Run("keep", func(b *testing.B) {
		for b.Loop() {
			last = kept(b, h, 1e15)
		}
		b.ReportMetric(float64(len(last)), "octets")
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			restored(b, n, last, 1e15)
		}
	})
}

// TestKeptTwice: what is twice in what was kept, since its place was used again meanwhile, is restored once.
func TestKeptTwice(t *testing.T) {
	h := small(20)
	h.Apply(opened(1, 3), closed(1, 4), opened(2, 3), opened(3, 5), closed(3, 6))
	piece := h.appendConnections(nil, 0)
	f := filling{h: small(20)}
	for range 2 {
		if err := f.piece(piece); err != nil {
			t.Fatal(err)
		}
	}
	f.done(10)
	if n := f.h.Fill().Connections; n != 3 {
		t.Errorf("%d connections are restored of 3", n)
	}
	for cookie := range uint64(3) {
		want, _ := h.ByCookie(cookie+1, 10)
		if got, ok := f.h.ByCookie(cookie+1, 10); !ok || !gocmp.Equal(want, got, equal) {
			t.Errorf("of socket %d: %+v, %v", cookie+1, got, ok)
		}
	}
	f.h.Forget(10)
	if n := f.h.Fill().Connections; n != 1 {
		t.Errorf("%d connections are open of 1", n)
	}
}
