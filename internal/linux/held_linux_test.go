package linux

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
)

// TestHeldThen: what a process held at a time is told, whatever it held since, and since when a connection is open is told of who has it.
func TestHeldThen(t *testing.T) {
	h := remembering(t)
	l := loopback(t)
	pair := func() (c, a *net.TCPConn) {
		t.Helper()
		c, a = connection(t, l)
		io.WriteString(c, "octets")
		io.ReadFull(a, make([]byte, 6))
		return c, a
	}
	_, a := pair()
	local, remote := a.LocalAddr().(*net.TCPAddr).AddrPort(), a.RemoteAddr().(*net.TCPAddr).AddrPort()
	is := func(s host.Socket) bool { return s.Local == local && s.Remote == remote }
	p, err := h.catchUp()
	if err != nil {
		t.Fatal(err)
	}
	then := p.time(sinceBoot())
	for range 2 * maxHeld {
		c, a := pair()
		c.Close()
		a.Close()
	}
	s := lookAt(t, h)
	me, err := s.Process(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(me.Descriptors, func(d host.Descriptor) bool {
		return d.Local == local && d.Remote == remote && !d.Opened.IsZero() && !d.Opened.After(then) && then.Sub(d.Opened) < time.Hour
	}) {
		t.Errorf("the open connection is not among %+v", me.Descriptors)
	}
	a.Close()
	s = lookAt(t, h)
	held, _, err := s.Held(t.Context(), me.ID(), then, then, false)
	if err != nil || !slices.ContainsFunc(held, is) {
		t.Errorf("at the time it held %+v, %v", held, err)
	}
	if i := slices.IndexFunc(held, is); i >= 0 {
		if far, err := s.Holders(t.Context(), held[i].Peer); err != nil || len(far) != 1 || far[0].ID != me.ID() {
			t.Errorf("its other end %q was held by %+v, %v", held[i].Peer, far, err)
		}
	}
	if held, _, err = s.Held(t.Context(), me.ID(), then, then, true); err != nil || slices.ContainsFunc(held, is) {
		t.Errorf("it opened %+v, %v", held, err)
	}
	if held, more, err := s.Held(t.Context(), me.ID(), then, time.Time{}, false); err != nil || len(held) != maxHeld || !more {
		t.Errorf("since then it held %d, and that there were more is %v, %v", len(held), more, err)
	}
}

// TestHeldUntold: where the kernel does not tell who has a connection before it is ended, one that the other end broke off may have been
// anybody's, so that what a process held may be more.
func TestHeldUntold(t *testing.T) {
	h := remembering(t)
	l := loopback(t)
	c, a := connection(t, l)
	local, remote := a.LocalAddr().(*net.TCPAddr).AddrPort(), a.RemoteAddr().(*net.TCPAddr).AddrPort()
	p, err := h.catchUp()
	if err != nil {
		t.Fatal(err)
	}
	then := p.time(sinceBoot())
	c.SetLinger(0)
	c.Close()
	for {
		if _, err := h.catchUp(); err != nil {
			t.Fatal(err)
		}
		if c, ok := p.history.Latest(local, remote, uint32(h.netns), sinceBoot()); ok && c.Closed != 0 {
			if len(c.Holders) != 0 {
				t.Fatalf("what the other end broke off was held by %v", c.Holders)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, untold := range []error{nil, errors.New("the kernel is too old")} {
		p.mu.Lock()
		p.events.Untold = untold
		p.mu.Unlock()
		s := lookAt(t, h)
		me, err := s.Process(t.Context(), os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if _, more, err := s.Held(t.Context(), me.ID(), then, then, false); err != nil || more != (untold != nil) {
			t.Errorf("untold %v: that it held more is %v, %v", untold, more, err)
		}
		if _, more, err := s.Held(t.Context(), me.ID(), then, then, true); err != nil || more {
			t.Errorf("untold %v: that it opened more is %v, %v", untold, more, err)
		}
		r, err := s.Remembered(t.Context(), me.ID())
		if said := slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return untold != nil && strings.Contains(g.Why, untold.Error()) }); err != nil || said != (untold != nil) {
			t.Errorf("untold %v: gaps are %v, %v", untold, r.Gaps, err)
		}
	}
}

// TestNothingHeld: without a recorder nothing is remembered, and that is no error.
func TestNothingHeld(t *testing.T) {
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, _, err := lookAt(t, h).Held(t.Context(), host.ID{PID: os.Getpid(), Start: 1}, time.Time{}, time.Time{}, true); !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
}

// TestOther: the other end of a connection of this host with itself is the one that was open with it.
func TestOther(t *testing.T) {
	history, err := recorder.New(recorder.Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &past{h: &Host{}, history: history}
	here, there := netip.MustParseAddrPort("127.0.0.1:9000"), netip.MustParseAddrPort("127.0.0.1:40000")
	end := func(cookie uint64, local, remote netip.AddrPort, opened, closed uint64) recorder.Connection {
		c := recorder.Connection{Cookie: cookie, Local: local, Remote: remote, NetNS: 1, Opened: opened, Closed: closed}
		history.Apply(recorder.Event{Kind: recorder.Established, At: opened, Connection: c})
		history.Apply(recorder.Event{Kind: recorder.Closed, At: closed, Connection: c})
		return c
	}
	one, two := end(1, there, here, 10, 20), end(2, here, there, 11, 21)
	three, four := end(3, there, here, 30, 40), end(4, here, there, 31, 45)
	alone := end(5, there, here, 50, 60) // whose other end is not remembered
	unsure := two
	unsure.Unsure = true
	for _, tt := range []struct {
		c    recorder.Connection
		want uint64
	}{{one, 2}, {two, 1}, {three, 4}, {four, 3}, {alone, 0}, {unsure, 0}} {
		if o, ok := p.other(tt.c); ok != (tt.want != 0) || ok && o.Cookie != tt.want {
			t.Errorf("the other end of %d is %d, %v, not %d", tt.c.Cookie, o.Cookie, ok, tt.want)
		}
	}
}

// TestUnnoticed: a connection whose end was not noticed was open for sure until events were lost.
func TestUnnoticed(t *testing.T) {
	history, err := recorder.New(recorder.Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	boot := time.Unix(1000, 0).UTC()
	p := &past{h: &Host{}, history: history}
	p.h.boot.Store(boot.UnixNano())
	at := func(ns uint64) time.Time { return boot.Add(time.Duration(ns)) }
	history.Lost(3e9, 5e9)
	history.Off(20e9, 30e9)
	for _, tt := range []struct {
		c                    recorder.Connection
		opened, since, until time.Time
	}{
		{recorder.Connection{Opened: 1e9, Closed: 6e9}, at(1e9), time.Time{}, time.Time{}},
		{recorder.Connection{Opened: 1e9, Closed: 6e9, Met: true}, time.Time{}, at(1e9), time.Time{}},
		{recorder.Connection{Opened: 1e9, Closed: 6e9, Unsure: true}, at(1e9), time.Time{}, at(3e9)},
		{recorder.Connection{Opened: 1e9, Closed: 40e9, Unsure: true}, at(1e9), time.Time{}, at(3e9)},
		{recorder.Connection{Opened: 4e9, Closed: 6e9, Unsure: true}, at(4e9), time.Time{}, at(4e9)},
		{recorder.Connection{Opened: 10e9, Closed: 31e9, Unsure: true}, at(10e9), time.Time{}, at(20e9)},
		{recorder.Connection{Opened: 10e9, Closed: 11e9, Unsure: true}, at(10e9), time.Time{}, at(10e9)},
	} {
		if s := p.socket(tt.c); !s.Opened.Equal(tt.opened) || !s.Since.Equal(tt.since) || !s.Until.Equal(tt.until) {
			t.Errorf("%+v is opened %v, since %v, until %v", tt.c, s.Opened, s.Since, s.Until)
		}
	}
}

// TestOthersHeld: that others held a connection than are remembered is a gap.
func TestOthersHeld(t *testing.T) {
	history, err := recorder.New(recorder.Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &past{h: &Host{}, history: history}
	c := recorder.Connection{Cookie: 1, Opened: 10, Closed: 20}
	if gaps := p.connectionGaps(c); len(gaps) != 0 {
		t.Errorf("gaps are %+v", gaps)
	}
	c.More = true
	if gaps := p.connectionGaps(c); len(gaps) != 1 || gaps[0].What != "who held the connection" {
		t.Errorf("gaps are %+v", gaps)
	}
}
