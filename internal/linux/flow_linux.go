package linux

import (
	"context"
	"errors"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

// Watch watches a process for a window of time, or until the context ends, and returns what its threads took from sockets and sent
// by them. Where whole is false there were more, later ones than are kept. The error is [host.ErrNotFound] where the
// process has ended.
func (h *Host) Watch(ctx context.Context, id host.ID, window time.Duration) (ts []host.Transfer, whole bool, err error) {
	if err := sameProcesses(); err != nil {
		return nil, false, err
	}
	w, err := bpf.OpenWatch(id.PID)
	if errors.Is(err, bpf.ErrNoProcess) {
		return nil, false, host.ErrNotFound
	}
	if err != nil {
		return nil, false, err
	}
	defer w.Close()
	if w.Started()/tick != id.Start {
		return nil, false, host.ErrNotFound // its number is another's by now
	}
	over := time.NewTimer(window)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
	calls, whole, err := w.Stop()
	if err != nil {
		return nil, false, err
	}
	return transfers(calls), whole, nil
}
