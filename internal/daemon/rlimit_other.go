//go:build !unix

package daemon

import "log/slog"

// noCoreDumps has nothing to forbid here.
func noCoreDumps(*slog.Logger) {}
