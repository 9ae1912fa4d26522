//go:build amd64 || arm64

package daemon

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is a list of system calls with what becomes of them, put together to the classic BPF program that the
// kernel runs before each (seccomp(2), Documentation/userspace-api/seccomp_filter.rst). What is refused fails with
// EPERM: a daemon that is not followed into something goes on.
type filter struct {
	verdicts  []verdict
	otherwise uint32
}

// A verdict is about one system call, where all that it is asked of its arguments holds.
type verdict struct {
	call int
	ifs  []argument
	then uint32
}

// An argument is the lower 32 bits of the nth argument, masked, and what that may be.
type argument struct {
	n    int
	mask uint32
	is   []uint32 // one of these
	not  bool     // none of these
}

const (
	allowed = unix.SECCOMP_RET_ALLOW
	refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func (f *filter) allow(calls ...int) {
	for _, c := range calls {
		f.verdicts = append(f.verdicts, verdict{call: c, then: allowed})
	}
}

func (f *filter) refuse(calls ...int) {
	for _, c := range calls {
		f.verdicts = append(f.verdicts, verdict{call: c, then: refused})
	}
}

func (f *filter) when(call int, then uint32, ifs ...argument) {
	f.verdicts = append(f.verdicts, verdict{call, ifs, then})
}

// Where seccomp_data has the call, its architecture and the lower half of an argument, on little-endian machines.
const (
	dataCall = 0
	dataArch = 4
	dataArgs = 16
)

const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	and     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	ret     = unix.BPF_RET | unix.BPF_K
)

// program assembles the filter for an architecture. Calls of another one, and of amd64's x32, are refused.
func (f *filter) program(arch uint32) []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: load, K: dataArch}, {Code: equal, K: arch, Jt: 1}, {Code: ret, K: refused},
		{Code: load, K: dataCall}, {Code: atLeast, K: x32, Jf: 1}, {Code: ret, K: refused},
	}
	for _, v := range f.verdicts {
		body := v.body()
		// The accumulator is the call again whenever a verdict begins. A jump is at most 255 far, and no body is.
		p = append(p, unix.SockFilter{Code: equal, K: uint32(v.call), Jf: uint8(len(body))})
		p = append(p, body...)
	}
	return append(p, unix.SockFilter{Code: ret, K: f.otherwise})
}

// body is what follows where the call is the verdict's.
func (v verdict) body() []unix.SockFilter {
	end := []unix.SockFilter{{Code: ret, K: v.then}}
	if len(v.ifs) == 0 {
		return end
	}
	// From the last condition to the first: a jump has to know what follows. One that fails goes to the end, where the
	// accumulator is loaded anew.
	end = append(end, unix.SockFilter{Code: load, K: dataCall})
	for i := len(v.ifs) - 1; i >= 0; i-- {
		a := v.ifs[i]
		part := []unix.SockFilter{{Code: load, K: uint32(dataArgs + 8*a.n)}, {Code: and, K: a.mask}}
		for j, k := range a.is {
			left := len(a.is) - 1 - j // comparisons that follow
			jump := unix.SockFilter{Code: equal, K: k}
			fail := uint8(left + len(end) - 1)
			switch {
			case a.not:
				jump.Jt = fail
			case left == 0:
				jump.Jf = fail
			default:
				jump.Jt = uint8(left)
			}
			part = append(part, jump)
		}
		end = append(part, end...)
	}
	return end
}

// install puts the filter on all threads of this process, and on what they execute.
func (f *filter) install() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := f.program(auditArch)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return errno
	}
	if tid != 0 {
		return errors.New("a thread has another filter")
	}
	return nil
}
