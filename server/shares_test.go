package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

func payerAt(a string) payer { return payer{source: Source(netip.MustParseAddr(a))} }

func ownedBy(a string, uid uint64) payer {
	return payer{Source(netip.MustParseAddr(a)), uid, true}
}

// takeAll takes as much as a payer gets.
func (s *shares) takeAll(p payer) (n int) {
	for s.take(p) {
		n++
	}
	return n
}

// However much sources have taken, another still gets some, as long as there are fewer sources than room.
func TestSharesOfSources(t *testing.T) {
	for _, c := range []struct{ limit, part, first, sources int }{{1000, 8, 111, 20}, {64, 2, 21, 8}, {8, 2, 3, 4}, {2, 2, 1, 2}, {1, 2, 1, 1}} {
		s := newShares(c.limit, c.part)
		for i := range c.sources {
			n := s.takeAll(payerAt(fmt.Sprintf("192.0.2.%d", i)))
			if n == 0 || i == 0 && n != c.first {
				t.Errorf("of %d source %d has %d", c.limit, i, n)
			}
		}
		for i := range c.limit {
			s.takeAll(payerAt(fmt.Sprintf("2001:db8:0:%x::1", i)))
		}
		if s.taken > s.limit {
			t.Errorf("%d of %d are taken", s.taken, s.limit)
		}
	}
}

// A user's connections have half of all, whoever asks; one source has not the whole half.
func TestSharesOfUsers(t *testing.T) {
	s := newShares(64, 2)
	first := s.takeAll(ownedBy("192.0.2.1", 1000))
	all := first
	for i := 2; i < 60; i++ {
		n := s.takeAll(ownedBy(fmt.Sprintf("192.0.2.%d", i), 1000))
		if i == 2 && n == 0 {
			t.Error("who asks about the same user from elsewhere has none")
		}
		all += n
	}
	if first >= 32 || all != 32 {
		t.Errorf("the first has %d, all %d", first, all)
	}
	if n := s.takeAll(ownedBy("192.0.2.99", 1001)); n == 0 {
		t.Error("another user's connections have none")
	}
	if n := s.takeAll(payerAt("192.0.2.98")); n == 0 {
		t.Error("who asks for a name has none")
	}
}

func TestSharesGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(4, 2)
		greedy, other := ownedBy("192.0.2.1", 1000), ownedBy("192.0.2.2", 1001)
		had := s.takeAll(greedy)
		got := make(chan string, 10)
		wait := func(name string, p payer, most time.Duration) {
			go func() { got <- fmt.Sprint(name, s.wait(p, most)) }()
			synctest.Wait()
		}
		others := []payer{payerAt("192.0.2.3"), payerAt("192.0.2.4"), payerAt("192.0.2.5")}
		for _, p := range others {
			s.takeAll(p)
		}
		wait("greedy ", greedy, time.Second)
		wait("other ", other, time.Minute)
		wait("late ", other, time.Minute)
		if len(got) != 0 {
			t.Fatalf("there was room: %q", <-got)
		}
		time.Sleep(time.Second)
		if r := <-got; r != "greedy false" {
			t.Errorf("%q", r)
		}
		wait("greedy ", greedy, time.Minute)
		// Whoever gives back, it goes to who was there first of those whose share is not used up.
		s.giveBack(payerAt("192.0.2.3"))
		if r := <-got; r != "other true" {
			t.Errorf("%q", r)
		}
		for range had {
			s.giveBack(greedy)
		}
		synctest.Wait()
		if len(got) == 0 {
			t.Error("nobody was let in")
		}
		for len(s.bySource) > 0 || s.queue.Len() > 0 { // all end
			for _, p := range append(others, greedy, other) {
				if s.bySource[p.source] > 0 {
					s.giveBack(p)
				}
			}
			synctest.Wait()
		}
		if s.taken != 0 || len(s.byUser) != 0 {
			t.Errorf("%d taken, users %v", s.taken, s.byUser)
		}
	})
}

// One user has many connections asked about, from several hosts, each of which takes as long as a look may. Who asks
// about another user's connection is answered at once; so is who asks about his from elsewhere.
func TestSlowConnectionsCrowdNobodyOut(t *testing.T) {
	const slow, quick = 2 * time.Second, time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		mallory := func(q stop.Question) bool { return q.Remote.Port() < 1000 }
		f := &owners{of: func(q stop.Question) uint64 {
			if mallory(q) {
				return 1000
			}
			return 1001
		}}
		f.examine = func(q stop.Question) error {
			if mallory(q) && q.Local.Port() != 7 {
				time.Sleep(slow)
			} else {
				time.Sleep(quick)
			}
			return nil
		}
		cfg := testConfig()
		cfg.Limits.Lookups, cfg.Limits.Connections = 16, 1000
		s := newServer(f, cfg)
		done := make(chan string, 200)
		for i := range cap(done) {
			go func() {
				done <- once(t, s, fmt.Sprintf("127.0.1.%d", i%3), fmt.Sprintf("1 , %d : SV_REC : %d", i+1, i))
			}()
		}
		synctest.Wait()
		for _, line := range []string{"1 , 2000 : SV", "1 , 2001 : SV_REC : 5", "1 , 2002", "7 , 3 : SV"} {
			start := time.Now()
			ports, _, _ := strings.Cut(line, " : ")
			tokenIn(t, ports, once(t, s, "127.0.0.9", line))
			limit := quick
			if strings.HasPrefix(line, "7") {
				limit = slow + quick // the user's half is taken: a place there comes free
			}
			if took := time.Since(start); took > limit {
				t.Errorf("%q took %s", line, took)
			}
		}
		for range cap(done) {
			<-done
		}
		s.finish(t)
		if s.lookups.taken != 0 || len(s.lookups.byUser) != 0 {
			t.Errorf("%d look-ups are still counted", s.lookups.taken)
		}
	})
}

// owners is a host with several users.
type owners struct {
	fake
	of func(stop.Question) uint64
}

func (o *owners) Find(ctx context.Context, q stop.Question) (stop.Connection, error) {
	c, err := o.fake.Find(ctx, q)
	c.Owner = o.of(q)
	return c, err
}

// Who is there first goes before who is served again and again.
func TestSharesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(2, 2)
		got := make(chan string, 10)
		wait := func(p payer) {
			go func() {
				if s.wait(p, time.Minute) {
					got <- p.source.String()
				}
			}()
			synctest.Wait()
		}
		a, b, c, d := payerAt("192.0.2.1"), payerAt("192.0.2.2"), payerAt("192.0.2.3"), payerAt("192.0.2.4")
		s.give(a)
		s.give(b)
		for _, p := range []payer{a, b, c, a, d} { // these two ask on, before anybody else
			wait(p)
		}
		var order []string
		for _, done := range []payer{a, b, c, d, a, b} {
			s.giveBack(done)
			synctest.Wait()
			if len(got) != 1 && s.queue.Len() > 0 {
				t.Fatalf("%d were let in", len(got))
			}
			if len(got) > 0 {
				order = append(order, <-got)
			}
		}
		want := []string{c.source.String(), d.source.String(), a.source.String(), b.source.String(), a.source.String()}
		if !slices.Equal(order, want) {
			t.Errorf("served are %q, not %q", order, want)
		}
	})
}

// What is kept of who was served does not grow for ever.
func TestSharesServed(t *testing.T) {
	s := newShares(1, 2)
	for i := range 3 * maxServed {
		p := payerAt(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff))
		s.give(p)
		s.giveBack(p)
	}
	if len(s.served) > maxServed {
		t.Errorf("%d sources are kept", len(s.served))
	}
}
