//go:build !linux

package daemon

import "log/slog"

// keepMemory forbids core dumps. Only the pages with keys are kept out of swap here.
func keepMemory(log *slog.Logger) { noCoreDumps(log) }
