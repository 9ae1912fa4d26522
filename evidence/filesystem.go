package evidence

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
)

// A fileSystem is what the system says of the one that a path is on.
type fileSystem struct {
	volatile string // its name, if it does not survive a reboot
	left     int64  // bytes that users other than root may still write
}

// roomOf is so many blocks in bytes.
func roomOf(blocks, size uint64) int64 {
	if over, n := bits.Mul64(blocks, size); over == 0 && n <= math.MaxInt64 {
		return int64(n)
	}
	return math.MaxInt64
}

// refuseVolatile refuses a store that would not survive a reboot. Where dir is missing, its nearest
// parent tells.
func refuseVolatile(dir string) error {
	for {
		fs, err := fileSystemOf(dir)
		if errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("check file system of %q: %w", dir, err)
		}
		if fs.volatile != "" {
			return fmt.Errorf("check file system of %q: %s does not survive a reboot", dir, fs.volatile)
		}
		return nil
	}
}
