package server

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A table remembers values for a time, and no more than so many.
type table[K comparable, V any] struct {
	mu    sync.Mutex
	limit int
	known map[K]entry[V]
}

type entry[V any] struct {
	value V
	until time.Time
}

func newTable[K comparable, V any](limit int) *table[K, V] {
	return &table[K, V]{limit: limit, known: map[K]entry[V]{}}
}

// update calls change with the value of a key, if it is known, and keeps what it returns until the given
// time. It returns false, and calls nothing, where the key is new and the table full.
func (t *table[K, V]) update(k K, now, until time.Time, change func(v V, known bool) V) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.known[k]
	if ok && !now.Before(e.until) {
		e, ok = entry[V]{}, false
		delete(t.known, k)
	}
	if !ok && len(t.known) >= t.limit {
		for k, e := range t.known {
			if !now.Before(e.until) {
				delete(t.known, k)
			}
		}
		if len(t.known) >= t.limit {
			return false
		}
	}
	if ok {
		until = e.until
	}
	t.known[k] = entry[V]{change(e.value, ok), until}
	return true
}

// drop forgets a key.
func (t *table[K, V]) drop(k K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, k)
}

// budgets are token buckets, one a key. Keys for which there is no room share one.
type budgets[K comparable] struct {
	*table[K, *rate.Limiter]
	rate  rate.Limit
	burst int
	rest  *rate.Limiter
}

func newBudgets[K comparable](limit int, perSecond float64, burst int) *budgets[K] {
	r := rate.Limit(perSecond)
	return &budgets[K]{newTable[K, *rate.Limiter](limit), r, burst, rate.NewLimiter(r, burst)}
}

// bucketAge is how long an unused bucket is kept; by then it is full again at any sensible rate.
const bucketAge = 10 * time.Minute

// spend takes one from the budget of a key; false where it is spent.
func (b *budgets[K]) spend(k K, now time.Time) bool {
	var ok bool
	room := b.update(k, now, now.Add(bucketAge), func(l *rate.Limiter, known bool) *rate.Limiter {
		if !known {
			l = rate.NewLimiter(b.rate, b.burst)
		}
		ok = l.AllowN(now, 1)
		return l
	})
	if !room {
		return b.rest.AllowN(now, 1)
	}
	return ok
}

// source is whose budget an address spends: an IPv6 host has a whole /64 to ask from.
func source(a netip.Addr) netip.Prefix {
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
