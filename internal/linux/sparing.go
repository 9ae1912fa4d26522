package linux

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A sparing remembers something about the host that takes long to read, for all who ask in a while: strangers can
// make us look for what does not exist as often as they like.
type sparing[T any] struct {
	mu      sync.Mutex
	last    readOnce[T]
	reading chan struct{} // closed as the reading that is under way ends; nil where none is
}

// A readOnce is what one reading found.
type readOnce[T any] struct {
	begun time.Time
	took  time.Duration
	v     T
	err   error
}

// Bounds of a sparing: reading begins after so many times what the last one took, and nobody waits longer than this for
// it to begin. Who waits keeps others waiting (limits.lookups), so the share is not smaller.
const (
	sparingRatio = 4
	sparingWait  = 2 * time.Second
)

// errSparing says that nobody has read since the time that was asked for, nor may soon.
var errSparing = errors.New("bound: it was asked for too often, and takes long")

// since returns what was read in a reading that began after a time. Who asks in between two readings waits for the next;
// where that begins too late, the error is errSparing, and the last one is returned.
func (s *sparing[T]) since(ctx context.Context, t time.Time, read func(context.Context) (T, error)) (T, error) {
	until := time.Now().Add(sparingWait)
	for {
		s.mu.Lock()
		last, reading := s.last, s.reading
		next := last.begun.Add(sparingRatio * last.took)
		mine := reading == nil && !last.begun.After(t) && time.Until(next) <= 0
		if mine {
			s.reading = make(chan struct{})
		}
		s.mu.Unlock()
		switch {
		case last.begun.After(t):
			return last.v, last.err
		case mine:
			now := readOnce[T]{begun: time.Now()}
			now.v, now.err = read(context.WithoutCancel(ctx)) // others wait for it as well
			now.took = time.Since(now.begun)
			s.mu.Lock()
			s.last, reading, s.reading = now, s.reading, nil
			s.mu.Unlock()
			close(reading)
			return now.v, now.err
		case reading == nil && next.After(until):
			return last.v, errors.Join(last.err, errSparing)
		}
		var later <-chan time.Time
		if reading == nil {
			later = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return last.v, ctx.Err()
		case <-reading:
		case <-later:
		}
	}
}
