package daemon

import (
	"context"
	"errors"
	"time"
)

// How often a process is asked whether it still answers, and how long that may take.
const (
	watchEvery = 5 * time.Second
	answerTime = 10 * time.Second
)

// watch ends a process that does not answer any more: one that was stopped, or whose threads are all stuck. One answer
// may be missed, since after a machine was suspended the time is over before anybody could run.
func (s *supervisor) watch(c *child) {
	for missed := 0; missed < 2; {
		select {
		case <-c.ended:
			return
		case <-time.After(watchEvery):
		}
		ctx, cancel := context.WithTimeout(context.Background(), answerTime)
		_, err := c.control.call(ctx, callCounted, nil)
		cancel()
		switch {
		case errors.Is(err, errLink):
			return // it ends
		case errors.Is(err, context.DeadlineExceeded):
			missed++
		default:
			missed = 0 // whatever it answers
		}
	}
	s.log.Error("a process of the daemon does not answer and is killed", "process", string(c.role))
	c.process.Kill()
}
