package bpf

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// watching are the programs that the kernel runs while a process is watched. Linux has what they attach to since 6.3.
var watching = []string{flowProgTook, flowProgSent, flowProgAdvanced}

// ErrNoProcess says that there is no such process.
var ErrNoProcess = errors.New("no such process")

// A Watch has the kernel write down what the threads of one process take from sockets and send by them.
type Watch struct {
	collection *ebpf.Collection
	links      []link.Link
	started    uint64
}

// OpenWatch has calls of a process written down from now on, until Stop. The process is as the caller's PID namespace counts; the error is
// [ErrNoProcess] where there is none. Whether the kernel does it is found by trying alone.
func OpenWatch(pid int) (*Watch, error) {
	spec, err := loadFlow()
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	c, err := ebpf.NewCollection(spec)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("load programs: %w: it takes CAP_BPF and CAP_PERFMON", unix.EPERM)
	}
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	w := &Watch{collection: c}
	if err = w.find(pid); err == nil {
		err = w.attach()
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// find tells the programs which process is meant.
func (w *Watch) find(pid int) error {
	fd, err := iterator(w.collection.Programs[flowProgFind], Tables{PID: pid})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return ErrNoProcess
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var nothing [1]byte
	if _, err := unix.Read(fd, nothing[:]); err != nil {
		return fmt.Errorf("find process: %w", err)
	}
	var first uint64
	if err := errors.Join(w.collection.Variables[flowVarProcess].Get(&first), w.collection.Variables[flowVarStarted].Get(&w.started)); err != nil {
		return fmt.Errorf("find process: %w", err)
	}
	if first == 0 {
		return ErrNoProcess
	}
	return nil
}

func (w *Watch) attach() error {
	for _, name := range watching {
		l, err := link.AttachTracing(link.TracingOptions{Program: w.collection.Programs[name], AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return fmt.Errorf("attach program %s: %w", name, err)
		}
		w.links = append(w.links, l)
	}
	return nil
}

// Started is when the process did, in nanoseconds of CLOCK_BOOTTIME.
func (w *Watch) Started() uint64 { return w.started }

// Stop ends the writing and returns the calls in the order in which they were written. Where whole is false there were more,
// later ones.
func (w *Watch) Stop() (calls []Call, whole bool, err error) {
	w.detach()
	r, err := ringbuf.NewReader(w.collection.Maps[flowMapCalls])
	if err != nil {
		return nil, false, fmt.Errorf("read calls: %w", err)
	}
	defer r.Close()
	r.SetDeadline(time.Now()) // nothing wakes the reader, and no more will come
	var record ringbuf.Record
	for {
		err := r.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, false, fmt.Errorf("read calls: %w", err)
		}
		c, err := DecodeCall(record.RawSample)
		if err != nil {
			return nil, false, err
		}
		calls = append(calls, c)
	}
	var full uint32
	if err := w.collection.Variables[flowVarFull].Get(&full); err != nil {
		return nil, false, fmt.Errorf("read calls: %w", err)
	}
	return calls, full == 0, nil
}

func (w *Watch) detach() {
	for _, l := range w.links {
		l.Close()
	}
	w.links = nil
}

// Close gives back what the kernel has for it.
func (w *Watch) Close() {
	w.detach()
	w.collection.Close()
}
