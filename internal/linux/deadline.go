package linux

import (
	"context"
	"time"
)

// part returns when one nth of the time that a context leaves will have passed; zero where it sets no
// deadline.
func part(ctx context.Context, n int) time.Time {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(deadline.Sub(now) / time.Duration(n))
}
