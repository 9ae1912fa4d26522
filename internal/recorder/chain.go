package recorder

// Slots and nodes are numbered from 1; 0 is none.

// A chain is a hash index over nodes that are numbered already: lists of those with one bucket, the newest first.
type chain struct {
	heads      []uint32
	prev, next []uint32
}

func newChain(buckets, nodes int) chain {
	return chain{make([]uint32, buckets), make([]uint32, nodes+1), make([]uint32, nodes+1)}
}

// newList makes a chain that looks for what it removes: for keys that few have in common.
func newList(buckets, nodes int) chain {
	return chain{heads: make([]uint32, buckets), next: make([]uint32, nodes+1)}
}

// chainBytes is what newChain takes, and listBytes newList.
func chainBytes(buckets, nodes int) int { return 4*buckets + 8*(nodes+1) }
func listBytes(buckets, nodes int) int  { return 4*buckets + 4*(nodes+1) }

func (c *chain) bucket(hash uint64) *uint32 { return &c.heads[hash%uint64(len(c.heads))] }

func (c *chain) first(hash uint64) uint32 { return *c.bucket(hash) }

func (c *chain) insert(hash uint64, n uint32) {
	head := c.bucket(hash)
	c.next[n] = *head
	if c.prev != nil {
		c.prev[n] = 0
		if *head != 0 {
			c.prev[*head] = n
		}
	}
	*head = n
}

func (c *chain) remove(hash uint64, n uint32) {
	if c.prev == nil {
		at := c.bucket(hash)
		for *at != n {
			at = &c.next[*at]
		}
		*at = c.next[n]
		return
	}
	if p := c.prev[n]; p != 0 {
		c.next[p] = c.next[n]
	} else {
		*c.bucket(hash) = c.next[n]
	}
	if x := c.next[n]; x != 0 {
		c.prev[x] = c.prev[n]
	}
}

// slots gives out numbers. Each is free, in use, or ended: those leave in the order in which they ended, but for second
// chances.
type slots struct {
	next        []uint32
	used        uint32 // that were ever given out
	taken       int    // that somebody has
	free        uint32
	first, last uint32 // of those that ended
}

func newSlots(n int) slots { return slots{next: make([]uint32, n+1)} }

// take returns a number that nobody has; 0 where there is none.
func (s *slots) take() uint32 {
	n := s.free
	switch {
	case n != 0:
		s.free = s.next[n]
	case int(s.used) == len(s.next)-1:
		return 0
	default:
		s.used++
		n = s.used
	}
	s.taken++
	return n
}

// all reports whether all numbers are of what goes on.
func (s *slots) all() bool { return s.taken == len(s.next)-1 && s.first == 0 }

func (s *slots) give(n uint32) {
	s.next[n], s.free = s.free, n
	s.taken--
}

// end puts a number behind those that ended before.
func (s *slots) end(n uint32) {
	s.next[n] = 0
	if s.last != 0 {
		s.next[s.last] = n
	} else {
		s.first = n
	}
	s.last = n
}

// shift takes away the first that ended.
func (s *slots) shift() uint32 {
	n := s.first
	if s.first = s.next[n]; s.first == 0 {
		s.last = 0
	}
	return n
}
