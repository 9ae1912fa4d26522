package server

import (
	"context"
	"sync/atomic"
)

// Counters count what happened since the start. Those that answer and those that ask previous hosts have their own.
type Counters struct {
	Requests, Malformed, Errors, Tokens, Names, Decoys, Duplicates, OverBound atomic.Uint64
	Asked, Evicted, Refused, Failed, NoRoom                                   atomic.Uint64
	Handshakes, FailedHandshakes, PlainRefused                                atomic.Uint64
}

// A Count is one counter as it was, by the name under which it is logged.
type Count struct {
	Name string
	N    uint64
}

// Counts gives every counter. None tells of a user or a connection.
func (c *Counters) Counts() []Count {
	return []Count{
		{"requests", c.Requests.Load()}, {"malformed", c.Malformed.Load()}, {"errors", c.Errors.Load()},
		{"tokens", c.Tokens.Load()}, {"names", c.Names.Load()}, {"decoys", c.Decoys.Load()}, {"duplicates", c.Duplicates.Load()},
		{"over_bound", c.OverBound.Load()}, {"asked", c.Asked.Load()}, {"evicted", c.Evicted.Load()},
		{"refused", c.Refused.Load()}, {"failed", c.Failed.Load()}, {"no_room", c.NoRoom.Load()},
		{"handshakes", c.Handshakes.Load()}, {"failed_handshakes", c.FailedHandshakes.Load()},
		{"plain_refused", c.PlainRefused.Load()},
	}
}

// Counted is what was counted since the start, and how far the bounds are used.
type Counted struct {
	Counts []Count
	Bounds []Bound
}

// And adds what another counted. Its bounds come after.
func (c Counted) And(o Counted) Counted {
	sum := Counted{append([]Count{}, c.Counts...), append(append([]Bound{}, c.Bounds...), o.Bounds...)}
next:
	for _, n := range o.Counts {
		for i := range sum.Counts {
			if sum.Counts[i].Name == n.Name {
				sum.Counts[i].N += n.N
				continue next
			}
		}
		sum.Counts = append(sum.Counts, n)
	}
	return sum
}

// Counted gives what the server counted itself.
func (s *Server) Counted() Counted { return Counted{s.Counters.Counts(), s.Bounds()} }

// AllCounted gives what the server and its tracer counted.
func (s *Server) AllCounted(ctx context.Context) (Counted, error) {
	t, err := s.tracer.Counted(ctx)
	return s.Counted().And(t), err
}
