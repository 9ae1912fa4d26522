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
		b, err := whole(func(b []byte) (int, error) {
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
