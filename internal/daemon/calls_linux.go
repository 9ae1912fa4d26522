//go:build amd64 || arm64

package daemon

import "golang.org/x/sys/unix"

// restrictCalls leaves a role the system calls that it needs. The collector, which runs other programs and copies
// sockets of others, is refused some; the others are allowed some.
func restrictCalls(r role) error {
	if r == collector {
		return collectorCalls().install()
	}
	f := &filter{otherwise: refused}
	f.runtime()
	// Not sendto and sendmsg, which connect (MSG_FASTOPEN): a listener that was shut down can be connected, from port 113.
	f.allow(unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_SHUTDOWN)
	switch r {
	case front:
		f.allow(unix.SYS_ACCEPT4)
	case tracer:
		f.when(unix.SYS_SOCKET, allowed, argument{n: 0, mask: ^uint32(0), is: []uint32{unix.AF_INET, unix.AF_INET6}},
			argument{n: 1, mask: 0xf, is: []uint32{unix.SOCK_STREAM, unix.SOCK_DGRAM}})
		f.allow(unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_SENDTO, unix.SYS_SENDMSG)
		f.reads()
	case reader:
		f.readsOnly()
		f.reads()
		f.allow(unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF)
	case keeper:
		f.allow(unix.SYS_ACCEPT4)
		f.reads()
		f.allow(unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_FTRUNCATE,
			unix.SYS_FALLOCATE, unix.SYS_FLOCK, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT,
			unix.SYS_LINKAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_COPY_FILE_RANGE, unix.SYS_SENDFILE, unix.SYS_SPLICE)
		f.allow(olderWrites...)
	}
	return f.install()
}

// runtime allows what Go's runtime does by itself, and reading and writing what is open.
func (f *filter) runtime() {
	f.allow(unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_CLOSE,
		unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK, unix.SYS_MLOCK, unix.SYS_MUNLOCK,
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_GETPARAM, unix.SYS_SCHED_GETSCHEDULER,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID,
		unix.SYS_CAPGET, unix.SYS_UNAME, unix.SYS_GETRLIMIT, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MEMBARRIER,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER, unix.SYS_SET_TID_ADDRESS,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP)
	f.allow(olderRuntime...)
	// Threads, but no processes. What else clone3 makes cannot be told from its arguments: clone is used instead.
	f.when(unix.SYS_CLONE, allowed, argument{n: 0, mask: unix.CLONE_THREAD, is: []uint32{unix.CLONE_THREAD}})
	f.when(unix.SYS_CLONE3, unknown)
	// No memory that is written becomes code.
	f.when(unix.SYS_MMAP, allowed, argument{n: 2, mask: unix.PROT_EXEC, is: []uint32{0}})
	f.when(unix.SYS_MPROTECT, allowed, argument{n: 2, mask: unix.PROT_EXEC, is: []uint32{0}})
	self := []uint32{uint32(unix.Getpid())}
	f.when(unix.SYS_TGKILL, allowed, argument{n: 0, mask: ^uint32(0), is: self})
	f.when(unix.SYS_PRCTL, allowed, argument{n: 0, mask: ^uint32(0), is: []uint32{unix.PR_SET_VMA, unix.PR_GET_DUMPABLE, unix.PR_GET_SECCOMP}})
	f.when(unix.SYS_PRLIMIT64, allowed, argument{n: 0, mask: ^uint32(0), is: append(self, 0)}, argument{n: 2, mask: ^uint32(0), is: []uint32{0}})
	// Others have the kernel signal whomever they name.
	f.when(unix.SYS_FCNTL, allowed, argument{n: 1, mask: ^uint32(0), is: []uint32{unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC}})
}

// reads allows to look at files; which ones Landlock says.
func (f *filter) reads() {
	f.allow(unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_FACCESSAT,
		unix.SYS_STATFS, unix.SYS_FSTATFS, unix.SYS_GETCWD, unix.SYS_FADVISE64, unix.SYS_STATX, newfstatat)
	for c := range openCalls {
		f.allow(c)
	}
	f.allow(olderReads...)
}

// readsOnly refuses to open files for anything else.
func (f *filter) readsOnly() {
	for c, n := range openCalls {
		f.when(c, refused, argument{n: n, mask: unix.O_ACCMODE, is: []uint32{unix.O_RDONLY}, not: true})
		f.when(c, refused, argument{n: n, mask: unix.O_CREAT | unix.O_TRUNC, is: []uint32{0}, not: true})
	}
}

// Requests of ptrace(2) that not every architecture has; the numbers are nothing else there.
const (
	ptraceSetRegs   = 13
	ptraceSetFPRegs = 15
)

// collectorCalls refuses what reading a host never needs: sockets of networks, files that are written, and others'
// processes that are changed. What adjtimex(2) is asked is in memory: it tells the state of the clock, and sets it only with
// CAP_SYS_TIME, which the collector has not. Programs that the collector runs, getent and journalctl, are refused it as well.
func collectorCalls() *filter {
	f := &filter{otherwise: allowed}
	f.when(unix.SYS_SOCKET, refused, argument{n: 0, mask: ^uint32(0), is: []uint32{unix.AF_UNIX, unix.AF_NETLINK}, not: true})
	f.readsOnly()
	f.when(unix.SYS_OPENAT2, unknown) // its flags are in memory
	f.when(unix.SYS_PTRACE, refused, argument{n: 0, mask: ^uint32(0), is: []uint32{unix.PTRACE_POKETEXT, unix.PTRACE_POKEDATA, unix.PTRACE_POKEUSR,
		ptraceSetRegs, ptraceSetFPRegs, unix.PTRACE_SETREGSET, unix.PTRACE_SETSIGINFO, unix.PTRACE_SETOPTIONS}})
	f.refuse(unix.SYS_IO_URING_SETUP, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT,
		unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_MKNODAT, unix.SYS_TRUNCATE, unix.SYS_FCHMOD,
		unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT, unix.SYS_SETXATTR, unix.SYS_LSETXATTR,
		unix.SYS_FSETXATTR, unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_MOUNT, unix.SYS_UMOUNT2,
		unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON,
		unix.SYS_SWAPOFF, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY,
		unix.SYS_CLOCK_ADJTIME, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_KEYCTL, unix.SYS_REQUEST_KEY)
	f.refuse(olderRefused...)
	f.refuse(olderWrites...)
	return f
}
