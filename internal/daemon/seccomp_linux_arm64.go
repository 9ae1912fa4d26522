package daemon

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	x32       = 1 << 31 // none
)

// Calls that this architecture has besides those that all have.
var (
	olderRuntime, olderReads, olderWrites, olderRefused []int

	newfstatat = unix.SYS_FSTATAT
	openCalls  = map[int]int{unix.SYS_OPENAT: 2} // and which argument has the flags
)
