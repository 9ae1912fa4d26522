package netlab

import (
	"context"
	"fmt"
	"time"
)

// waitLimit bounds a wait whose context has no deadline: a test that waits for ever tells nothing.
const waitLimit = 2 * time.Minute

// WaitFor calls cond until it returns true, and nil is returned then. An error of cond ends the wait.
// When ctx ends first, the error wraps its cause; a ctx without a deadline gets one of two minutes.
func WaitFor(ctx context.Context, cond func() (bool, error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, waitLimit)
		defer cancel()
	}
	const first, last = time.Millisecond, 50 * time.Millisecond
	for pause := first; ; pause = min(2*pause, last) {
		done, err := cond()
		if err != nil {
			return fmt.Errorf("wait for condition: %w", err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for condition: %w", context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
