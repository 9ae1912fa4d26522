//go:build !linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/stopd/stopd/host"
)

var errSystem = fmt.Errorf("this version cannot see processes and sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openSystem() (system, error) { return system{}, errSystem }

func keepProcesses() error { return nil }

func abilities() []string { return []string{errSystem.Error()} }

func record(context.Context) (host.Recording, error) { return host.Recording{}, errSystem }
