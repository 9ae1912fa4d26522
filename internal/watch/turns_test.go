package watch

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/settings"
)

// to is a question to a host of 127.0.0.0/24, about a port.
func to(host byte, port uint16) question {
	return question{host: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, host}), 113), local: netip.AddrPortFrom(netip.Addr{}, port)}
}

// taken are the questions whose turn it is now.
func taken(t *turns) (got []string) {
	for {
		t.mu.Lock()
		n := t.ready.Len()
		t.mu.Unlock()
		if n == 0 {
			return got
		}
		q, _ := t.take()
		got = append(got, fmt.Sprintf("%d:%d", q.host.Addr().As4()[3], q.local.Port()))
	}
}

func TestTurns(t *testing.T) {
	turns := newTurns(100, 2*oneHost, time.Millisecond) // two of a host at once
	for port := range uint16(4) {
		turns.put(to(1, port))
	}
	turns.put(to(2, 0))
	turns.put(to(3, 0))
	expect := func(when string, want ...string) {
		t.Helper()
		if got := taken(turns); !slices.Equal(got, want) {
			t.Fatalf("%s: %q, want %q", when, got, want)
		}
	}
	expect("at first", "1:0", "2:0", "3:0", "1:1")
	host := to(1, 0).host.Addr()
	turns.done(host, reached)
	expect("one is done", "1:2")
	turns.rest = time.Hour
	if !turns.done(host, unreached) || turns.done(host, unreached) {
		t.Error("a host that cannot be reached is left alone once for all that was under way")
	}
	expect("it is left alone")
	again := to(1, 9)
	again.tries = 1
	turns.put(again)
	turns.put(to(2, 1))
	expect("others are not", "2:1")

	turns.lines[host].until = time.Now() // an hour later
	turns.mu.Lock()
	turns.settle(turns.lines[host])
	turns.mu.Unlock()
	expect("one tries it", "1:9")
	turns.done(host, untried)
	expect("that was too late", "1:3")
	turns.rest = time.Millisecond
	turns.done(host, unreached)
	turns.put(to(1, 4))
	if q, ok := turns.take(); !ok || q.local.Port() != 4 {
		t.Errorf("when its time is over comes %+v, %t", q, ok)
	}
	turns.done(host, reached)
	turns.done(to(2, 0).host.Addr(), reached)
	turns.done(to(2, 0).host.Addr(), reached)
	turns.done(to(3, 0).host.Addr(), reached)
	if len(turns.lines) > 0 {
		t.Errorf("%d hosts are remembered of whom nothing waits", len(turns.lines))
	}
	turns.close()
	if q, ok := turns.take(); ok {
		t.Errorf("after the end comes %+v", q)
	}
}

// What waits at the end is taken, whosever it is.
func TestTurnsHurried(t *testing.T) {
	turns := newTurns(100, 1, time.Hour)
	for port := range uint16(3) {
		turns.put(to(1, port))
	}
	taken(turns)
	turns.done(to(1, 0).host.Addr(), unreached)
	turns.hurry()
	if got := taken(turns); !slices.Equal(got, []string{"1:1", "1:2"}) {
		t.Errorf("%q", got)
	}
}

// The room of those that wait is not one host's.
func TestTurnsRoom(t *testing.T) {
	turns := newTurns(100, 1, time.Hour)
	n := 0
	for turns.put(to(1, 0)) {
		n++
	}
	if n != 50 {
		t.Errorf("%d questions to one host wait", n)
	}
	for host := byte(2); host < 30; host++ {
		if !turns.put(to(host, 0)) {
			t.Errorf("there is no room for host %d", host)
		}
	}
}

// A host that takes questions and never answers keeps nobody waiting but who asks it.
func TestHangingHost(t *testing.T) {
	hangs := newFakeHost(t, "127.0.0.2:0")
	hangs.held = make(chan struct{})
	defer close(hangs.held)
	newFakeHost(t, fmt.Sprintf("127.0.0.3:%d", hangs.at.Port()))
	f := newFixture(t, hangs.at.Port(), func(c *Config) {
		c.Hosts = []settings.Network{{Prefix: netip.MustParsePrefix("127.0.0.0/24")}}
		c.Limits.AtOnce, c.Limits.Queue = 4, 100
	})
	var text strings.Builder
	for host, n := range []int{2: 40, 3: 20} {
		for i := range n {
			fmt.Fprintf(&text, "127.0.0.%d:%d -> 127.0.0.9:22\n", host, 40000+i)
		}
	}
	f.background(Lines(strings.NewReader(text.String())))
	f.waits("all tokens of the other are kept", func() bool { return f.w.Counts.Kept.Load() == 20 })
	if n := len(hangs.asked()); n != 1 {
		t.Errorf("%d questions to the one that hangs are under way", n)
	}
}
