package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the processes of the roles tell of themselves, as JSON.
type report struct {
	PID     int // of a process beside it
	TID     int
	FD      int
	Socket  uint64 // inode
	Sockets []uint64
	NetNS   uint64
	Local   netip.AddrPort
	Remote  netip.AddrPort
}

func (r report) line() (string, error) {
	b, err := json.Marshal(r)
	return string(b), err
}

// hostileName is a name that looks like another process to whoever splits /proc/PID/stat at blanks.
const hostileName = "a) R 1\n(b"

// hostileRole has a name and arguments that a stranger chose. It runs in the first thread.
func hostileRole() (string, error) {
	name := append([]byte(hostileName), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return "", err
	}
	// The arguments lie in memory that the process may write.
	arg := os.Args[1]
	copy(unsafe.Slice((*byte)(unsafe.StringData(arg)), len(arg)), "\xff\x1b[2J\n\\")
	return "", nil
}

// threadsRole connects to the address in its environment, in a thread with a table of descriptors of its
// own, which nobody else has the socket in. At number 100 that thread has the write end of a pipe, the
// others something to read.
func threadsRole() (string, error) {
	to, err := netip.ParseAddrPort(os.Getenv("STOPD_TEST_TO"))
	if err != nil {
		return "", err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Dup2(null, 100); err != nil {
		return "", err
	}
	type result struct {
		report
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		var r result
		r.err = func() error {
			if err := unix.Unshare(unix.CLONE_FILES); err != nil {
				return err
			}
			var p [2]int
			if err := unix.Pipe(p[:]); err != nil {
				return err
			}
			if err := errors.Join(unix.Dup2(p[1], 100), unix.Close(p[0]), unix.Close(p[1])); err != nil {
				return err
			}
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			r.TID, r.FD = unix.Gettid(), s
			return unix.Connect(s, sockaddr(unix.AF_INET, to))
		}()
		done <- r
		select {} // keeps the thread
	}()
	r := <-done
	if r.err != nil {
		return "", r.err
	}
	return r.line()
}

// leaderlessRole ends its first thread while others go on, which leaves a zombie that threads belong to.
func leaderlessRole() (string, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(p[0], &st); err != nil {
		return "", err
	}
	go func() {
		runtime.LockOSThread() // a thread that is not the first
		for {
			b, err := os.ReadFile("/proc/self/stat")
			if s, perr := parseStat(b); err == nil && perr == nil && s.state == 'Z' {
				break
			}
			runtime.Gosched()
		}
		line, _ := report{FD: p[0], Socket: st.Ino}.line()
		say(line)
		waitInput()
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // this thread alone
	return "", nil
}

// hiddenRole forbids to read a page of the memory that its arguments lie in, and of its environment. Both are
// several pages long, because there is the stack before the first.
func hiddenRole() (string, error) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return "", err
	}
	st, err := parseStat(b)
	if err != nil {
		return "", err
	}
	page := uint64(os.Getpagesize())
	for _, a := range []area{st.args, st.environ} {
		from := (a.from + page - 1) &^ (page - 1)
		if _, _, e := unix.Syscall(unix.SYS_MPROTECT, uintptr(from), uintptr(page), unix.PROT_NONE); e != 0 {
			return "", os.NewSyscallError("mprotect", e)
		}
	}
	return "", nil
}

// fuseRole holds, before a pipe, the root of a file system in user space that is another user's: the kernel
// lets nobody else ask about it, not even root. It runs in a mount namespace of its own.
func fuseRole() (string, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	dir := os.Getenv("STOPD_TEST_DIR")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if err := unix.Mount("test", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=65534,group_id=65534", dev)); err != nil {
		return "", fmt.Errorf("mount: %w", err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Dup2(root, 50); err != nil {
		return "", err
	}
	if err := unix.Dup2(p[0], 51); err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(51, &st); err != nil {
		return "", err
	}
	return report{FD: 51, Socket: st.Ino}.line()
}

// netnsRole makes a pair of UNIX sockets and a connection over loopback, in a network namespace of its own
// where loopback is down at first.
func netnsRole() (string, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return "", err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return "", fmt.Errorf("loopback: %w", err)
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	local := netip.AddrPortFrom(loopback4, 4000)
	if err := unix.Bind(s, sockaddr(unix.AF_INET, local)); err != nil {
		return "", err
	}
	if err := unix.Listen(s, 1); err != nil {
		return "", err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Bind(c, sockaddr(unix.AF_INET, netip.AddrPortFrom(loopback4, 4001))); err != nil {
		return "", err
	}
	if err := unix.Connect(c, sockaddr(unix.AF_INET, local)); err != nil {
		return "", err
	}
	a, _, err := unix.Accept(s)
	if err != nil {
		return "", err
	}
	r := report{Local: netip.AddrPortFrom(loopback4, 4001), Remote: local}
	var st unix.Stat_t
	for _, f := range []int{p[0], p[1], c, a} {
		if err := unix.Fstat(f, &st); err != nil {
			return "", err
		}
		r.Sockets = append(r.Sockets, st.Ino)
	}
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return "", err
	}
	r.NetNS = st.Ino
	return r.line()
}

// manyRole holds one pipe very many times.
func manyRole() (string, error) {
	n, err := strconv.Atoi(os.Getenv("STOPD_TEST_COUNT"))
	if err != nil {
		return "", err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n) + 100, Max: uint64(n) + 100}); err != nil {
		return "", err
	}
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return "", err
	}
	for range n {
		if _, err := unix.Dup(p[1]); err != nil {
			return "", err
		}
	}
	return "", nil
}
