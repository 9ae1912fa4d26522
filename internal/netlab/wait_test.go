package netlab

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	broken := errors.New("broken")
	gone := errors.New("caller gone")
	for _, tc := range []struct {
		name  string
		cond  func(elapsed time.Duration) (bool, error)
		limit time.Duration // 0 for a context without a deadline
		want  error
		took  time.Duration // at most
	}{
		{"at once", func(time.Duration) (bool, error) { return true, nil }, 0, nil, 0},
		{"later", func(d time.Duration) (bool, error) { return d >= time.Second, nil }, 0, nil, 1100 * time.Millisecond},
		{"error", func(time.Duration) (bool, error) { return false, broken }, 0, broken, 0},
		{"deadline", func(time.Duration) (bool, error) { return false, nil }, 2 * time.Second, gone, 2 * time.Second},
		{"no deadline", func(time.Duration) (bool, error) { return false, nil }, 0, context.DeadlineExceeded, waitLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tc.limit != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, tc.limit, gone)
					defer cancel()
				}
				start := time.Now()
				err := WaitFor(ctx, func() (bool, error) { return tc.cond(time.Since(start)) })
				if !errors.Is(err, tc.want) {
					t.Errorf("WaitFor: error %v, want %v", err, tc.want)
				}
				if took := time.Since(start); took > tc.took {
					t.Errorf("WaitFor took %s, want at most %s", took, tc.took)
				}
			})
		})
	}
}
