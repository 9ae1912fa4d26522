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
	var answered chan error // of what is asked now; nil where nothing is
	for missed := 0; missed < 2; {
		select {
		case <-c.ended:
			return
		case <-time.After(watchEvery):
		}
		if answered == nil {
			answered = make(chan error, 1)
			go func() { // beside: to ask waits, too, for one that does not read
				_, err := c.control.call(context.Background(), callCounted, nil)
				answered <- err
			}()
		}
		select {
		case err := <-answered:
			if errors.Is(err, errLink) {
				return // it ends
			}
			missed, answered = 0, nil // whatever it answers
		case <-time.After(answerTime):
			missed++
		}
	}
	s.log.Error("a process of the daemon does not answer and is killed", "process", string(c.role))
	c.process.Kill()
}
