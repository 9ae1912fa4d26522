//go:build !linux && !darwin && !freebsd && !openbsd && !solaris && !illumos

package evidence

import (
	"math"
	"os"
)

// fileSystemOf cannot tell here: every file system passes, and has room.
func fileSystemOf(path string) (fileSystem, error) {
	_, err := os.Stat(path)
	return fileSystem{left: math.MaxInt64}, err
}
