package daemon

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	x32       = 0x40000000 // __X32_SYSCALL_BIT
)

// Calls that this architecture has besides those that all have.
var (
	olderRuntime = []int{unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_ARCH_PRCTL, unix.SYS_GETPGRP}
	olderReads   = []int{unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_READLINK, unix.SYS_ACCESS}
	newfstatat   = unix.SYS_NEWFSTATAT
	olderWrites  = []int{unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_LINK, unix.SYS_CHMOD}
	olderRefused = []int{unix.SYS_CREAT, unix.SYS_SYMLINK, unix.SYS_MKNOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME,
		unix.SYS_UTIMES, unix.SYS_FUTIMESAT, unix.SYS_IOPL, unix.SYS_IOPERM}
	openCalls = map[int]int{unix.SYS_OPENAT: 2, unix.SYS_OPEN: 1} // and which argument has the flags
)
