//go:build !linux && !openbsd && !solaris && !freebsd

package daemon

import "runtime"

var errSystem = unseen(runtime.GOOS)

func openSystem() (system, error) { return system{}, errSystem }

func keepProcesses() error { return nil }

func abilities() []string { return []string{errSystem.Error()} }
