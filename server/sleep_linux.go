package server

import (
	"time"

	"golang.org/x/sys/unix"
)

// exact bounds the threads that wait exactly; beyond them the host is busy, and times tell less.
var exact = make(chan struct{}, 16)

// coarse is how early a timer of Go's has to be for it to be in time: where nothing else runs it ends a whole number
// of milliseconds after it began (epoll_wait(2)), which would tell when that was.
const coarse = 1500 * time.Microsecond

// sleepUntil sleeps, and ends no earlier, and by no more later than the kernel's own timers do.
func sleepUntil(t time.Time) {
	time.Sleep(time.Until(t) - coarse)
	select {
	case exact <- struct{}{}:
		rest := unix.NsecToTimespec(int64(max(0, time.Until(t))))
		unix.Nanosleep(&rest, nil) // may end early, by a signal
		<-exact
	default:
	}
	time.Sleep(time.Until(t))
}
