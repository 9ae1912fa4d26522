//go:build !linux && !openbsd && !solaris && !freebsd

package daemon

import (
	"errors"
	"fmt"
	"runtime"
)

var errSystem = fmt.Errorf("this version cannot see processes and sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openSystem() (system, error) { return system{}, errSystem }

func keepProcesses() error { return nil }

func abilities() []string { return []string{errSystem.Error()} }
