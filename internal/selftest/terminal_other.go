//go:build unix && !linux && !openbsd && !freebsd && !solaris

package selftest

import (
	"errors"
	"fmt"
	"os"
)

func openTerminal() (master, slave *os.File, err error) {
	return nil, nil, fmt.Errorf("no terminal is made on this system: %w", errors.ErrUnsupported)
}
