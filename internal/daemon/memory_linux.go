package daemon

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// keepMemory keeps reports and keys that are in memory out of core files, out of other processes of the same user,
// and out of swap.
func keepMemory(log *slog.Logger) {
	noCoreDumps(log)
	// Root still can: PR_SET_DUMPABLE is no protection from CAP_SYS_PTRACE (ptrace(2)). It also gives the process's
	// files in /proc to root, which the process itself may read all the same.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("keep other processes from reading this one's memory", "error", err)
	}
	if err := lockMemory(); err != nil {
		log.Warn("memory may be swapped to disk, but for the keys: reports that are being made may be found there", "error", err)
	}
}

// lockMemory locks all memory as it comes to be used. A process that may lock only so much gets none beyond that
// at all (mlockall(2)), so such a process does not try.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("read limit of locked memory: %w", err)
	}
	if os.Geteuid() != 0 && limit.Cur != unix.RLIM_INFINITY {
		return fmt.Errorf("lock memory: only %d bytes are allowed (RLIMIT_MEMLOCK)", limit.Cur)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}
