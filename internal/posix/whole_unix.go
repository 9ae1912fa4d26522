//go:build unix

package posix

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// What one question may take at most, and what it is given at least: of structures of one size OpenBSD does not say which that is
// (sysctl_rdstruct in kern/kern_sysctl.c).
const (
	maxValue = 512 << 20
	minValue = 4 << 10
)

// spare is how much room is to be left over. FreeBSD ends a list of descriptors where the next does not fit, and does not say so
// (export_kinfo_to_sb in kern/kern_descrip.c); one has at most 1392 octets.
const spare = 1392

const maxTries = 5

var errCut = errors.New("it grew while it was read: the end may be missing")

// whole reads a value that may grow between the question how large it is and the one what it is. Into gives the size where it has
// no room, else the octets that it filled. A guess at the size spares the first question where it is right; 0 is none.
func whole(guess int, into func(b []byte) (int, error)) ([]byte, error) {
	for try := 1; ; try++ {
		n := guess
		if n == 0 {
			var err error
			if n, err = into(nil); err != nil {
				return nil, err
			}
		} else {
			guess, try = 0, 0
		}
		if n += n/8 + spare; n > maxValue {
			return nil, fmt.Errorf("bound: %d octets", maxValue)
		}
		b := make([]byte, max(n, minValue))
		n, err := into(b)
		if err == nil && len(b)-n < spare {
			err = errCut
		}
		switch {
		case err == nil:
			return b[:n], nil
		case !errors.Is(err, errCut) && !errors.Is(err, syscall.ENOMEM) || try == maxTries:
			return nil, err
		}
	}
}

// The sizes of large values that are remembered, and of how many.
const (
	largeValue = 64 << 10
	maxSizes   = 16
)

// sizes remembers how large values were. The zero sizes is empty.
type sizes struct {
	mu   sync.Mutex
	last map[string]int
}

func (s *sizes) of(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[name]
}

// keep remembers the size of a large value: asking for that of all descriptors costs as much as asking for them.
func (s *sizes) keep(name string, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case size < largeValue:
		delete(s.last, name)
		return
	case s.last == nil || len(s.last) >= maxSizes: // of processes that have ended
		s.last = map[string]int{}
	}
	s.last[name] = size
}
