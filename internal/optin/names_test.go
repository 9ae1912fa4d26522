package optin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	irc  = netip.MustParseAddr("192.0.2.9")
	irc2 = netip.MustParseAddr("192.0.2.10")
)

// A zone is what names resolve to, and how often they were asked for.
type zone struct {
	mu    sync.Mutex
	addrs map[string]netip.Addr // none: an error
	asked map[string]int
	takes time.Duration
	now   int // under way
	most  int
}

func (z *zone) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[name]++
	z.now++
	z.most = max(z.most, z.now)
	takes := z.takes
	z.mu.Unlock()
	var err error
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		err = ctx.Err()
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.now--
	if err != nil {
		return nil, err
	}
	if a, ok := z.addrs[name]; ok {
		return []netip.Addr{a}, nil
	}
	return nil, errors.New("no such host")
}

func (z *zone) locked(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func (z *zone) names() *Names {
	z.asked = map[string]int{}
	return &Names{Resolve: z.resolve}
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string]netip.Addr{"irc.example": irc}, takes: time.Second}
		n := z.names()
		ctx, cancel := context.WithCancel(t.Context())
		go n.Run(ctx)
		is := func(name string, a netip.Addr, has, known bool) {
			t.Helper()
			began := time.Now()
			if h, k := n.Has(1000, name, a); h != has || k != known {
				t.Errorf("%s has %s: %t, known %t", name, a, h, k)
			}
			if time.Since(began) > 0 {
				t.Error("it waited")
			}
		}
		is("irc.example", irc, false, false)
		is("no.example", irc, false, false)
		time.Sleep(2 * time.Second)
		is("irc.example", irc, true, true)
		is("irc.example", netip.MustParseAddr("::ffff:192.0.2.9"), true, true)
		is("irc.example", irc2, false, true)
		is("no.example", irc, false, false)
		// It is looked up again without being asked for, and what it was holds for a while where that fails.
		z.locked(func() { z.addrs["irc.example"] = irc2 })
		time.Sleep(refreshAfter + 2*time.Minute)
		is("irc.example", irc2, true, true)
		z.locked(func() { delete(z.addrs, "irc.example") })
		time.Sleep(usableFor / 2)
		is("irc.example", irc2, true, true)
		time.Sleep(usableFor)
		is("irc.example", irc2, false, false)
		// What nobody asks for is forgotten.
		time.Sleep(unusedFor + 2*time.Minute)
		n.mu.Lock()
		if len(n.known) != 0 {
			t.Errorf("%d names are kept", len(n.known))
		}
		n.mu.Unlock()
		cancel()
	})
}

// One user, with a name server that does not answer, does not keep others' names from being looked up, nor fill the table.
func TestNamesBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string]netip.Addr{"irc.example": irc}, takes: time.Hour}
		n := z.names()
		for i := range 1000 {
			n.Has(1000, fmt.Sprintf("h%d.example", i), irc)
		}
		synctest.Wait()
		z.mu.Lock()
		n.mu.Lock()
		if z.most != maxUserLookup || len(n.known) != maxUserNames {
			t.Errorf("%d look-ups at once, %d names", z.most, len(n.known))
		}
		n.mu.Unlock()
		z.mu.Unlock()
		z.locked(func() { z.takes = 0 })
		n.Has(1001, "irc.example", irc)
		synctest.Wait()
		if has, _ := n.Has(1001, "irc.example", irc); !has {
			t.Error("another user's name is not looked up")
		}
		z.locked(func() { z.takes = time.Hour })
		n.mu.Lock()
		for i := range uint32(maxEntries - len(n.known)) {
			n.known[named{2000 + i, "x.example"}] = &addresses{used: time.Now()}
		}
		n.mu.Unlock()
		for i := range uint32(2 * maxLookups) {
			time.Sleep(time.Millisecond)
			n.Has(100000+i, "x.example", irc)
		}
		synctest.Wait()
		z.locked(func() {
			if z.most > maxLookups {
				t.Errorf("%d look-ups at once", z.most)
			}
		})
		time.Sleep(time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.known) > maxEntries {
			t.Errorf("%d names", len(n.known))
		}
		if n.total != 0 || len(n.running) != 0 {
			t.Errorf("%d look-ups are counted and have ended", n.total)
		}
	})
}
