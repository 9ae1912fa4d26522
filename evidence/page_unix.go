//go:build unix && !aix

package evidence

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lock keeps memory out of swap (mlock(2)); tests replace it.
var lock = unix.Mlock

// newPage gives memory for a key that is not a part of Go's heap, so that no collector copies it, and that is
// not swapped where the system lets it be locked.
func newPage() (page []byte, locked bool, err error) {
	page, err = unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, false, fmt.Errorf("map page for key: %w", err)
	}
	neverDump(page)
	return page, lock(page) == nil, nil
}

func freePage(page []byte) error { return unix.Munmap(page) }
