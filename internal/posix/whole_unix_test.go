//go:build unix

package posix

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// A value that is cut without a word is asked for again, as one for which there was said to be too little room is, and not for ever.
func TestWhole(t *testing.T) {
	for _, tt := range []struct {
		name   string
		grows  int // how often
		refuse bool
		want   error
	}{{"still", 0, false, nil}, {"cut", 4, false, nil}, {"refused", 4, true, nil}, {"cut for ever", 99, false, errCut}, {"refused for ever", 99, true, syscall.ENOMEM}} {
		size, asked := 100000, 0
		b, err := whole(0, func(b []byte) (int, error) {
			if b == nil {
				return size, nil
			}
			if asked++; asked <= tt.grows {
				size *= 2
			}
			if size > len(b) && tt.refuse {
				return 0, fmt.Errorf("sysctl: %w", syscall.ENOMEM)
			}
			return min(size, len(b)-len(b)%1000), nil // whole records
		})
		if !errors.Is(err, tt.want) || err == nil && len(b) != size || err != nil && len(b) > 0 {
			t.Errorf("%s: %d octets of %d, %v", tt.name, len(b), size, err)
		}
	}
}

// A good guess at the size spares a question for it, and a bad one costs nothing but a try.
func TestWholeByGuess(t *testing.T) {
	const size = 100000
	for _, tt := range []struct{ guess, sizes int }{{0, 1}, {size, 0}, {size + 1, 0}, {size - size/20, 0}, {size / 2, 1}, {1, 1}} {
		sizes, values := 0, 0
		b, err := whole(tt.guess, func(b []byte) (int, error) {
			if b == nil {
				sizes++
				return size, nil
			}
			values++
			return min(size, len(b)-len(b)%1000), nil
		})
		if err != nil || len(b) != size || sizes != tt.sizes || values > 2 {
			t.Errorf("guess %d: %d octets, %v, asked %d times for the size and %d for the value", tt.guess, len(b), err, sizes, values)
		}
	}
}

// The sizes of large values are remembered, of the last ones, and no more of what has become small.
func TestSizes(t *testing.T) {
	var s sizes
	s.keep("small", largeValue-1)
	s.keep("large", largeValue)
	s.keep("shrunk", largeValue)
	s.keep("shrunk", 1)
	if s.of("small") != 0 || s.of("large") != largeValue || s.of("shrunk") != 0 {
		t.Errorf("%v", s.last)
	}
	for i := range 10 * maxSizes {
		s.keep(fmt.Sprint(i), largeValue+i)
		if s.of(fmt.Sprint(i)) != largeValue+i || len(s.last) > maxSizes {
			t.Errorf("%d: %v", i, s.last)
		}
	}
}
