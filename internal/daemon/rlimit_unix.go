//go:build unix

package daemon

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// noCoreDumps keeps reports that are in memory out of core files.
func noCoreDumps(log *slog.Logger) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		log.Warn("forbid core dumps", "error", err)
	}
}
