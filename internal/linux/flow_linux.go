package linux

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

// TryWatch says why no process can be watched, found by trying; nil where one can.
func (h *Host) TryWatch() error {
	if err := sameProcesses(); err != nil {
		return err
	}
	w, err := bpf.OpenWatch(os.Getpid())
	if err != nil {
		return err
	}
	w.Close()
	return nil
}

// Watch watches a process for a window of time, or until the context ends, and returns what its threads took from sockets and sent
// by them, or the first of that where there is much. The error is [host.ErrNotFound] where the process has ended.
func (h *Host) Watch(ctx context.Context, id host.ID, window time.Duration) ([]host.Transfer, error) {
	if err := sameProcesses(); err != nil {
		return nil, err
	}
	w, err := bpf.OpenWatch(id.PID)
	if errors.Is(err, bpf.ErrNoProcess) {
		return nil, host.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if w.Started()/tick != id.Start {
		return nil, host.ErrNotFound // its number is another's by now
	}
	over := time.NewTimer(window)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
	calls, _, err := w.Stop()
	if err != nil {
		return nil, err
	}
	return transfers(calls), nil
}
