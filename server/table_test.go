package server

import (
	"net/netip"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	now := time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)
	put := func(tab *table[int, int], k int, at time.Time) (known, room bool) {
		room = tab.update(k, at, at.Add(time.Minute), func(v int, ok bool) int {
			if known = ok; ok && v != k {
				t.Errorf("the value of %d is %d", k, v)
			}
			return k
		})
		return known, room
	}
	t.Run("time", func(t *testing.T) {
		tab := newTable[int, int](10)
		for _, c := range []struct {
			after time.Duration
			known bool
		}{{0, false}, {59 * time.Second, true}, {time.Minute, false}, {119 * time.Second, true}, {2 * time.Minute, false}} {
			// That a key is asked for does not make it last.
			if known, _ := put(tab, 1, now.Add(c.after)); known != c.known {
				t.Errorf("after %s known is %t", c.after, known)
			}
		}
		tab.drop(1)
		if known, _ := put(tab, 1, now.Add(121*time.Second)); known {
			t.Error("a dropped key is known")
		}
	})
	t.Run("the oldest makes room", func(t *testing.T) {
		tab := newTable[int, int](3)
		for k := range 10 {
			if known, room := put(tab, k, now); known || !room {
				t.Errorf("%d: known %t, room %t", k, known, room)
			}
			if len(tab.known) > 3 || tab.order.Len() != len(tab.known) {
				t.Fatalf("%d keys, %d in order", len(tab.known), tab.order.Len())
			}
		}
		if known, _ := put(tab, 9, now); !known {
			t.Error("the newest is gone")
		}
		if known, _ := put(tab, 0, now); known {
			t.Error("the oldest is still there")
		}
	})
	t.Run("or newcomers are refused", func(t *testing.T) {
		tab := newTable[int, int](3)
		tab.refuses = true
		for k := range 5 {
			if _, room := put(tab, k, now); room != (k < 3) {
				t.Errorf("%d: room %t", k, room)
			}
		}
		if _, room := put(tab, 5, now.Add(time.Minute)); !room {
			t.Error("no room when all have ended")
		}
		if len(tab.known) != 1 {
			t.Errorf("%d keys that have ended are still there", len(tab.known)-1)
		}
	})
}

func TestBudgets(t *testing.T) {
	now := time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)
	a := allowance{perSecond: 1, burst: 2}
	b := newBudgets[int](2)
	count := func(k int, now time.Time, a allowance) (n int) {
		for n < 10 && b.spend(k, now, a) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		key   int
		after time.Duration
		a     allowance
		want  int
	}{
		{1, 0, a, 2}, {2, 0, a, 2}, {1, 0, a, 0},
		{3, 0, a, 2}, {4, 0, a, 0}, // those without room share one
		{1, time.Second, a, 1},
		{1, 2 * time.Second, allowance{perSecond: 5, burst: 7}, 7}, // a new allowance, a new bucket
		{1, 3 * time.Second, allowance{perSecond: 5, burst: 7}, 5},
	} {
		if got := count(c.key, now.Add(c.after), c.a); got != c.want {
			t.Errorf("%d after %s with %v: spent %d, not %d", c.key, c.after, c.a, got, c.want)
		}
	}
}

func TestSource(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := Source(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("source of %s is %s, not %s", addr, got, want)
		}
	}
	if got := Source(netip.Addr{}); got.IsValid() {
		t.Errorf("source of no address is %s", got)
	}
}
