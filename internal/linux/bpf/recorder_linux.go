package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// Events reads what happens to connections and processes.
type Events struct {
	// Untold is why the kernel does not tell who has a connection that was accepted before it is ended; nil where it tells.
	Untold error
	// Unjoined is why the kernel does not tell by what processes can be joined; nil where it tells.
	Unjoined error

	collection *ebpf.Collection
	reader     *ringbuf.Reader
	wakes      *os.File // the ring as something to wait for
	links      []link.Link
	records    [batch]ringbuf.Record
	events     [batch]recorder.Event // of these
	skipped    uint64
}

// batch is how many events are read at once.
const batch = 64

// attached are the programs that the kernel runs by itself.
var attached = []string{recorderProgState, recorderProgStateAgain, recorderProgForked, recorderProgExecuted, recorderProgExited}

// touching are those of them that tell who has a connection that was accepted. Linux has them since 6.3.
var touching = []string{recorderProgSent, recorderProgReceived}

// joining are those of them that tell by what processes can be joined.
var joining = []string{recorderProgHeldFrom, recorderProgHeldWhile, recorderProgHeldUntil}

// OpenEvents has the kernel write events from now on. Whether it does is found by trying alone. What the process with the pid own does with connections
// is left out: it copies others' sockets; 0 is none.
func OpenEvents(own int) (*Events, error) {
	e, err := loadEvents()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(e.collection.Variables[recorderVarOwn].Set(uint32(own)), e.begin()); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// loadEvents loads the programs, where it has to be without those that join, or touch, or either.
func loadEvents() (*Events, error) {
	spec, err := loadRecorder()
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	var first error
	for _, without := range [][]string{nil, joining, touching, slices.Concat(joining, touching)} {
		tried := spec.Copy()
		for _, name := range without {
			delete(tried.Programs, name)
		}
		if tried.Programs[joining[0]] == nil {
			delete(tried.Programs, recorderProgHeldSince)
		}
		c, err := ebpf.NewCollection(tried)
		if err == nil {
			e := &Events{collection: c}
			if tried.Programs[joining[0]] == nil {
				e.Unjoined = first
			}
			if tried.Programs[touching[0]] == nil {
				e.Untold = first
			}
			return e, nil
		}
		if first == nil {
			first = err
		}
	}
	if errors.Is(first, unix.EPERM) {
		return nil, fmt.Errorf("load programs: %w: it takes CAP_BPF and CAP_PERFMON", unix.EPERM)
	}
	return nil, fmt.Errorf("load programs: %w", first)
}

func (e *Events) begin() (err error) {
	if e.reader, err = ringbuf.NewReader(e.collection.Maps[recorderMapEvents]); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	e.reader.SetDeadline(time.Unix(0, 1)) // what is there, and no more
	fd, err := unix.FcntlInt(uintptr(e.collection.Maps[recorderMapEvents].FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true) // has Go wait for it without a thread
	}
	if err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	e.wakes = os.NewFile(uintptr(fd), "events")
	// The first record of a list of processes finds the PID namespace that the others count in.
	if err := e.list(recorderProgProcesses, new(sync.Mutex), func([]byte) ([]byte, error) { return nil, io.EOF }); err != nil {
		return err
	}
	return e.attach()
}

func (e *Events) attach() error {
	// What a process had as it ended is to be told before its end.
	for _, name := range slices.Concat(joining, attached, touching) {
		p := e.collection.Programs[name]
		if p == nil {
			continue
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return fmt.Errorf("attach program %s: %w", name, err)
		}
		e.links = append(e.links, l)
	}
	return nil
}

func (e *Events) detach() {
	for _, l := range e.links {
		l.Close()
	}
	e.links = nil
}

// Stop ends a Wait that goes on, and has all others fail. It may be called from another goroutine.
func (e *Events) Stop() { e.wakes.Close() }

// Close frees what the kernel has for it. Nobody may use it meanwhile.
func (e *Events) Close() {
	e.detach()
	if e.wakes != nil {
		e.wakes.Close()
	}
	if e.reader != nil {
		e.reader.Close()
	}
	e.collection.Close()
}

// Wait waits until many events have been written, or until a time; it returns an error once Stop was called.
func (e *Events) Wait(until time.Time) error {
	ring, err := e.wakes.SyscallConn()
	if err == nil {
		err = e.wakes.SetReadDeadline(until)
	}
	if err == nil {
		waited := false
		err = ring.Read(func(uintptr) bool { // is called before it waits, and after
			defer func() { waited = true }()
			return waited
		})
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for events: %w", err)
	}
	return nil
}

// Read calls each with all that has been written so far, some at a time. Events are valid until each returns.
func (e *Events) Read(each func([]recorder.Event)) error {
	left := e.reader.AvailableBytes()
	for left > 0 {
		n := 0
		for ; n < batch && left > 0; n++ {
			r := &e.records[n]
			if err := e.reader.ReadInto(r); err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			if _, err := DecodeEvent(r.RawSample, &e.events[n]); err != nil {
				return err
			}
			left -= unix.BPF_RINGBUF_HDR_SZ + (len(r.RawSample)+7)&^7
		}
		each(e.events[:n])
	}
	return nil
}

// Lost is how many events there was no room for so far, and how many the kernel skipped until they were counted last.
func (e *Events) Lost() (n uint64, err error) {
	if err = e.collection.Variables[recorderVarLost].Get(&n); err != nil {
		return 0, fmt.Errorf("read count of lost events: %w", err)
	}
	return n + e.skipped, nil
}

// CountSkipped counts what the kernel has skipped so far: where a program would run while it runs on the same processor, it does not (prog->active in
// kernel/trace/bpf_trace.c). Of what packets change there is a second program for that; nothing else is known to happen to the others. It takes some 20 microseconds.
func (e *Events) CountSkipped() error {
	e.skipped = 0
	for _, name := range slices.Concat(joining, attached, touching) {
		if p := e.collection.Programs[name]; p != nil && name != recorderProgState && name != recorderProgStateAgain {
			s, err := p.Stats()
			if err != nil {
				return fmt.Errorf("count skipped events of program %s: %w", name, err)
			}
			e.skipped += s.RecursionMisses
		}
	}
	return nil
}

// Met calls each with the processes of the daemon's PID namespace and with what these have by which they can be joined, and with the
// connections that a process has a descriptor of, once for each descriptor. It goes by steps, of some hundred of them: that l is locked from when the kernel
// lists what is of a step until each was called with it all, so what is read while it is not is from before that, or after it.
func (e *Events) Met(l sync.Locker, each func(*recorder.Event)) error {
	var ev recorder.Event
	for _, name := range []string{recorderProgProcesses, recorderProgHeldSince, recorderProgConnections} {
		if e.collection.Programs[name] == nil {
			continue
		}
		err := e.list(name, l, func(b []byte) (rest []byte, err error) {
			for len(b) >= headEnd {
				if rest, err = DecodeEvent(b, &ev); err != nil {
					break // the rest of it comes later
				}
				each(&ev)
				b = rest
			}
			return b, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// list calls some with what an iterator has written so far and some has not taken, until it ends or some returns an error; [io.EOF] is none. It locks l for each step.
func (e *Events) list(program string, l sync.Locker, some func([]byte) ([]byte, error)) error {
	i, err := link.AttachIter(link.IterOptions{Program: e.collection.Programs[program]})
	if err != nil {
		return fmt.Errorf("link iterator %s: %w", program, err)
	}
	defer i.Close()
	r, err := i.Open()
	if err != nil {
		return fmt.Errorf("open iterator %s: %w", program, err)
	}
	defer r.Close()
	buf := make([]byte, 64<<10)
	left := 0
	step := func() error {
		l.Lock()
		defer l.Unlock()
		n, err := r.Read(buf[left:])
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // it has walked very many and found none
			return nil
		}
		if err != nil && err != io.EOF { // what was not listed is not over
			return fmt.Errorf("read iterator %s: %w", program, err)
		}
		if n == 0 {
			return io.EOF
		}
		rest, err := some(buf[:left+n])
		if err == nil {
			left = copy(buf, rest)
		}
		return err
	}
	for err == nil {
		err = step()
	}
	if err != io.EOF {
		return err
	}
	if left != 0 {
		return fmt.Errorf("list by %s: %w: %d octets are left", program, errEvent, left)
	}
	return nil
}
