package bpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Files reads descriptors.
type Files struct {
	collection  *ebpf.Collection
	program     *ebpf.Program
	first, most *ebpf.Variable
	turn        chan struct{} // one pass runs at a time
}

// Open loads the program. Whether the kernel takes it is found by trying alone.
func Open() (*Files, error) {
	spec, err := loadFiles()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	c, err := ebpf.NewCollection(spec)
	if errors.Is(err, unix.EPERM) {
		// The library would add advice about limits that such kernels no longer have.
		return nil, fmt.Errorf("load program: %w: it takes CAP_BPF and CAP_PERFMON", unix.EPERM)
	}
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	f := &Files{collection: c, program: c.Programs[filesProgDescriptors], first: c.Variables[filesVarFirst], most: c.Variables[filesVarMost],
		turn: make(chan struct{}, 1)}
	if err := f.try(); err != nil {
		c.Close()
		return nil, err
	}
	return f, nil
}

// Close frees the program.
func (f *Files) Close() { f.collection.Close() }

// try has the kernel walk through one process, so that what it cannot do is known at once.
func (f *Files) try() error {
	return f.Read(context.Background(), Tables{PID: os.Getpid()}, func(*Record) bool { return true })
}

// Tables says which descriptors are read.
type Tables struct {
	// PID is the one process that is read, with threads that have tables of their own; 0 is all of the
	// caller's PID namespace, ascending, but for the caller's own process. TID is one thread alone.
	PID, TID int
	// Descriptors below First are left out.
	First int
	// Most is how many records each table may have; 0 is any number. The next is marked as [Cut].
	Most int
}

// Read calls each with the descriptors that a channel can be made of, until it returns false or the context
// ends. A descriptor is of its time: tables change while they are read.
func (f *Files) Read(ctx context.Context, t Tables, each func(*Record) bool) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := errors.Join(f.first.Set(uint32(t.First)), f.most.Set(uint32(t.Most))); err != nil {
		return fmt.Errorf("set variables of program: %w", err)
	}
	fd, err := iterator(f.program, t)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10)
	left := 0
	for goOn := true; goOn; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Read(fd, buf[left:])
		switch {
		case err == unix.EAGAIN || err == unix.EINTR: // it has walked very many and found none
			continue
		case err != nil:
			return fmt.Errorf("read descriptors: %w", err)
		case n == 0:
			return nil
		}
		rest := Decode(buf[:left+n], func(r *Record) { goOn = goOn && each(r) })
		left = copy(buf, rest)
	}
	return nil
}

// iterator opens an iterator over tables, or over processes. The library's links do not take a process (its IterOptions has a
// map only), so this is bpf(2) itself.
func iterator(p *ebpf.Program, t Tables) (int, error) {
	info := struct{ tid, pid, pidfd uint32 }{tid: uint32(t.TID)} // union bpf_iter_link_info
	if t.TID == 0 {
		info.pid = uint32(t.PID)
	}
	create := struct {
		program, target, attach, flags uint32
		info                           uint64
		length                         uint32
		_                              uint32
	}{program: uint32(p.FD()), attach: uint32(ebpf.AttachTraceIter)}
	if t.PID != 0 || t.TID != 0 {
		create.info, create.length = uint64(uintptr(unsafe.Pointer(&info))), uint32(unsafe.Sizeof(info))
	}
	link, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&create)), unsafe.Sizeof(create))
	runtime.KeepAlive(&info)
	runtime.KeepAlive(p)
	if e != 0 {
		return -1, fmt.Errorf("link iterator: %w", e)
	}
	defer unix.Close(int(link))
	open := struct{ link, flags uint32 }{link: uint32(link)}
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_ITER_CREATE, uintptr(unsafe.Pointer(&open)), unsafe.Sizeof(open))
	if e != 0 {
		return -1, fmt.Errorf("open iterator: %w", e)
	}
	return int(fd), nil
}
