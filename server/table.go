package server

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A table remembers values for a time, and no more than so many. At the bound the oldest makes room:
// whoever fills a table must not close it to others.
type table[K comparable, V any] struct {
	mu    sync.Mutex
	limit int
	// refuses turns newcomers away at the bound instead.
	refuses bool
	reached uint64 // how often the bound was met
	known   map[K]*list.Element
	order   list.List // of *entry[K, V], the oldest first, so roughly in the order of their ends
}

type entry[K comparable, V any] struct {
	key   K
	value V
	until time.Time
}

func newTable[K comparable, V any](limit int) *table[K, V] {
	return &table[K, V]{limit: limit, known: map[K]*list.Element{}}
}

// update calls change with the value of a key, if it is known, and keeps what it returns: until the given
// time, or that of the known value. It returns false, and calls nothing, where there is no room.
func (t *table[K, V]) update(k K, now, until time.Time, change func(v V, known bool) V) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.known[k]; ok {
		if e := at.Value.(*entry[K, V]); now.Before(e.until) {
			e.value = change(e.value, true)
			return true
		}
		t.remove(at)
	}
	for at := t.order.Front(); at != nil && !now.Before(at.Value.(*entry[K, V]).until); at = t.order.Front() {
		t.remove(at)
	}
	if len(t.known) >= t.limit {
		t.reached++
		if t.refuses {
			return false
		}
		t.remove(t.order.Front())
	}
	var none V
	t.known[k] = t.order.PushBack(&entry[K, V]{k, change(none, false), until})
	return true
}

func (t *table[K, V]) remove(at *list.Element) {
	delete(t.known, t.order.Remove(at).(*entry[K, V]).key)
}

// drop forgets a key.
func (t *table[K, V]) drop(k K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.known[k]; ok {
		t.remove(at)
	}
}

// budgets are token buckets, one a key. Keys for which there is no room share one: forgetting somebody's
// bucket would fill it again.
type budgets[K comparable] struct {
	*table[K, *rate.Limiter]
	rest *rate.Limiter // under the table's lock
}

// An allowance is what a bucket is refilled with, and how much it holds.
type allowance struct {
	perSecond float64
	burst     int
}

func newBudgets[K comparable](limit int) *budgets[K] {
	t := newTable[K, *rate.Limiter](limit)
	t.refuses = true
	return &budgets[K]{table: t}
}

// bucketAge is how long a bucket is kept; by then it is full again at any sensible rate.
const bucketAge = 10 * time.Minute

// spend takes one from the budget of a key; false where it is spent.
func (b *budgets[K]) spend(k K, now time.Time, a allowance) bool {
	var ok bool
	if b.update(k, now, now.Add(bucketAge), func(l *rate.Limiter, _ bool) *rate.Limiter {
		l = a.bucket(l)
		ok = l.AllowN(now, 1)
		return l
	}) {
		return ok
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = a.bucket(b.rest)
	return b.rest.AllowN(now, 1)
}

// bucket returns a bucket of the allowance: the given one, unless it is nil or of another.
func (a allowance) bucket(l *rate.Limiter) *rate.Limiter {
	if l == nil || l.Limit() != rate.Limit(a.perSecond) || l.Burst() != a.burst {
		return rate.NewLimiter(rate.Limit(a.perSecond), a.burst)
	}
	return l
}

// Source is whose budget an address spends: an IPv6 host has a whole /64 to ask from.
func Source(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
