//go:build linux && !amd64 && !arm64

package daemon

import "golang.org/x/sys/unix"

const (
	auditArch = 0 // no filter
	x32       = 1 << 31
)

var (
	olderRuntime, olderReads, olderWrites, olderRefused []int

	newfstatat = unix.SYS_FSTATAT
	openCalls  = map[int]int{unix.SYS_OPENAT: 2}
)
