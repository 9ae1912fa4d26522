package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A plant is one process of an arrangement: it holds what it is told to and waits. It is made by fork(2)
// alone and runs no program of its own, so that thousands of them fit on a small machine and each has one
// thread, no descriptor that it was not given, and exactly the parent it should have.
type plant struct {
	parent int   // index of the plant that forks it; -1 is nobody: it becomes init's
	uid    int   // with the gid of the same number
	files  []int // what it holds beside the three standard descriptors, which are /dev/null
	six    bool  // it makes two ends of a pipe and a file of its own as well (thesis section 4.7.1)
	dups   int   // descriptor that it duplicates until it may have no more; 0 is none
	all    bool  // it holds whatever the arrangement made
}

// A planted is what a plant says of itself once it stands.
type planted struct{ PID int32 }

// ground is what all plants share, made before the first fork: in a child of a Go program that has forked
// nothing but plain system calls is safe, because the other threads that the runtime counts on are gone.
type ground struct {
	plants []plant
	said   int // where they say that they stand
	null   int
	path   []byte
}

// sow forks the plants that are nobody's. Each forks its own, so it returns in this process alone.
//
// It and all that it calls in a child is nosplit: where a function looks whether its stack is large enough,
// the runtime may stop it for another goroutine to run, and in a child there is nobody to go on.
//
//go:nosplit
func (g *ground) sow() error {
	self := -1
again:
	for i := range g.plants {
		if g.plants[i].parent != self {
			continue
		}
		pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e != 0 {
			if self < 0 {
				return fmt.Errorf("fork: %w", e)
			}
			g.exit() // the benchmark misses it
		}
		if pid == 0 {
			self = i
			goto again
		}
	}
	if self >= 0 {
		g.stand(self)
	}
	return nil
}

//go:nosplit
func (g *ground) exit() { syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0) }

// must ends a plant of which a system call failed.
//
//go:nosplit
func (g *ground) must(n uintptr, _ uintptr, e syscall.Errno) uintptr {
	if e != 0 {
		g.exit()
	}
	return n
}

// stand takes what the plant holds, says that it stands, and waits for its end.
//
//go:nosplit
func (g *ground) stand(self int) {
	p := &g.plants[self]
	for fd := range uintptr(3) {
		g.must(syscall.RawSyscall(unix.SYS_DUP3, uintptr(g.null), fd, 0))
	}
	for fd := 3; fd < 256 && !p.all; fd++ {
		keep := fd == g.said
		for _, f := range p.files {
			keep = keep || f == fd
		}
		if !keep {
			syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
		}
	}
	if p.six {
		var ends [2]int32
		g.must(syscall.RawSyscall(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&ends)), 0, 0))
		cwd := unix.AT_FDCWD
		g.must(syscall.RawSyscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&g.path[0])), unix.O_RDONLY, 0, 0, 0))
	}
	if p.uid != 0 {
		id := uintptr(p.uid)
		g.must(syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0))
		g.must(syscall.RawSyscall(unix.SYS_SETRESGID, id, id, id))
		g.must(syscall.RawSyscall(unix.SYS_SETRESUID, id, id, id))
	}
	pid, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	if p.dups > 0 {
		for {
			if _, _, e := syscall.RawSyscall(unix.SYS_DUP, uintptr(p.dups), 0, 0); e != 0 {
				break
			}
		}
	}
	say := planted{int32(pid)}
	g.must(syscall.RawSyscall(unix.SYS_WRITE, uintptr(g.said), uintptr(unsafe.Pointer(&say)), unsafe.Sizeof(say)))
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(g.said), 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// A garden is an arrangement that stands.
type garden struct{ pids []int }

// end ends the processes and waits until they are gone.
func (g *garden) end() {
	for _, pid := range g.pids {
		unix.Kill(pid, unix.SIGKILL)
	}
	for _, pid := range g.pids {
		for unix.Kill(pid, 0) == nil {
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
	}
	g.pids = nil
}

// What this program, executed again, is to make.
const (
	sowEnv  = "STOPD_BENCH_SOW"
	sizeEnv = "STOPD_BENCH_SIZE"
)

// grow has an arrangement made by this program, executed again and small, and waits until it stands.
func grow(name string, size int) (*garden, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), sowEnv+"="+name, sizeEnv+"="+strconv.Itoa(size))
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	g := &garden{}
	var count int64
	err = binary.Read(r, binary.NativeEndian, &count)
	for err == nil {
		var p planted
		if err = binary.Read(r, binary.NativeEndian, &p); err == nil {
			g.pids = append(g.pids, int(p.PID))
		}
	}
	if waited := cmd.Wait(); err != io.EOF || waited != nil || int(count) != len(g.pids) {
		g.end()
		return nil, fmt.Errorf("make arrangement %s of %d: %d of %d processes stand: %w", name, size, len(g.pids), count, errors.Join(waited, err))
	}
	return g, nil
}

// sow makes an arrangement, in this program executed again by grow.
func sow(name string, size int) error {
	debug.SetGCPercent(-1)
	raiseFiles()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	g := &ground{said: 3, null: null, path: []byte("/etc/passwd\x00")}
	if g.plants, err = arrangements[name](size); err != nil {
		return err
	}
	said := os.NewFile(3, "said")
	if err := binary.Write(said, binary.NativeEndian, int64(len(g.plants))); err != nil {
		return err
	}
	return g.sow()
}

// raiseFiles lets a process have as many descriptors as it may have.
func raiseFiles() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	l.Cur = min(l.Max, maxFiles)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	return int(l.Cur)
}
