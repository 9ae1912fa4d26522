package recorder

import "testing"

// TestChosen: who makes sockets, or processes, until they have the cookies or pids that he wants, makes no chain long.
func TestChosen(t *testing.T) {
	h := small(4000)
	buckets := uint64(len(h.connections.cookies.heads))
	for i := range uint64(1000) {
		h.Apply(opened(1+i*buckets, 10+i), fork(uint32(1+i*buckets), 1, 10+i))
	}
	longest := func(c *chain) (most int) {
		for _, n := range c.heads {
			length := 0
			for ; n != 0; n = c.next[n] {
				length++
			}
			most = max(most, length)
		}
		return most
	}
	if n := longest(&h.connections.cookies); n > 20 {
		t.Errorf("1000 connections make a chain of %d", n)
	}
	if n := longest(&h.processes.pids); n > 20 {
		t.Errorf("1000 processes make a chain of %d", n)
	}
}
