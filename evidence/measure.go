package evidence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A SyncTime says how long writes take until they are durable. No reply leaves sooner.
type SyncTime struct {
	Writes          int
	Median, Longest time.Duration
}

// Bounds of a measurement.
const (
	syncWrites = 64
	syncBytes  = 4096
	syncWait   = 2 * time.Second
)

// MeasureSync appends to a file without a name where a store in dir is or would be, one write after the other, as the store
// does. Nothing is left of it. The error wraps [errors.ErrUnsupported] where the system has no such files.
func MeasureSync(dir string) (SyncTime, error) {
	f, err := nameless(dir)
	for ; errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir; f, err = nameless(dir) {
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return SyncTime{}, fmt.Errorf("make a file in %q: %w", dir, err)
	}
	defer f.Close()
	var took []time.Duration
	for began := time.Now(); len(took) < syncWrites && time.Since(began) < syncWait; {
		start := time.Now()
		if err := systemDisk.append(f, make([]byte, syncBytes), int64(syncBytes*len(took))); err != nil {
			return SyncTime{}, fmt.Errorf("write to %q: %w", dir, err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return SyncTime{len(took), took[len(took)/2], took[len(took)-1]}, nil
}
