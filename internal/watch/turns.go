package watch

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// turns are the questions that wait, in a line for each host. Hosts take turns, so that one with many questions, or one that hangs, does not keep others
// waiting: it may have a share of what is under way, and its line grows while it is no longer than there is room left. One that could not be reached is left alone
// for a time, which doubles while that goes on, and then tried with one question.
type turns struct {
	limit, share int
	rest         time.Duration // at first

	mu      sync.Mutex
	some    sync.Cond // a line is ready, or there is an end
	waiting int
	lines   map[netip.Addr]*hostQueue
	ready   list.List // of *hostQueue
	closed  bool      // nothing comes any more
	hurried bool      // nobody is left alone any more
}

// A hostQueue is the questions to one host.
type hostQueue struct {
	host    netip.Addr
	waiting []question
	busy    int // questions under way
	failed  int // how often it was left alone since it was reached
	until   time.Time
	ready   *list.Element // nil where it is not its turn
}

// maxRest bounds how long a host is left alone, and oneHost is the share of what is under way that is one host's.
const (
	maxRest = time.Minute
	oneHost = 8
)

func newTurns(limit, atOnce int, rest time.Duration) *turns {
	t := &turns{limit: limit, share: max(1, atOnce/oneHost), rest: rest, lines: map[netip.Addr]*hostQueue{}}
	t.some.L = &t.mu
	return t
}

// put has a question wait, before all others of its host where it was asked already. It reports whether there is room for it.
func (t *turns) put(q question) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[q.host.Addr()]
	if l == nil {
		l = &hostQueue{host: q.host.Addr()}
	}
	if len(l.waiting) >= t.limit-t.waiting {
		return false
	}
	t.lines[l.host] = l
	t.waiting++
	if q.tries > 0 {
		l.waiting = append([]question{q}, l.waiting...)
	} else {
		l.waiting = append(l.waiting, q)
	}
	t.settle(l)
	return true
}

// take waits for a question whose turn it is. False is that none will come any more.
func (t *turns) take() (question, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.ready.Len() == 0 {
		if t.closed && t.waiting == 0 {
			return question{}, false
		}
		t.some.Wait()
	}
	l := t.ready.Remove(t.ready.Front()).(*hostQueue)
	l.ready = nil
	q := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.busy++
	t.waiting--
	t.settle(l)
	if t.closed && t.waiting == 0 {
		t.some.Broadcast()
	}
	return q, true
}

// An outcome is what a question says of its host.
type outcome int

const (
	untried outcome = iota // it was not asked
	reached
	unreached
)

// done says that a question of a host is under way no more. It reports whether the host is left alone now, and was not before.
func (t *turns) done(host netip.Addr, o outcome) (rests bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[host]
	l.busy--
	now := time.Now()
	switch {
	case o == untried:
	case o == reached:
		l.failed, l.until = 0, time.Time{}
	case now.Before(l.until): // that is one of several that were under way
	default:
		rest := min(t.rest<<min(l.failed, 16), maxRest)
		rests = l.failed == 0
		l.failed++
		l.until = now.Add(rest)
		time.AfterFunc(rest, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.settle(l)
		})
	}
	t.settle(l)
	return rests
}

// settle puts a line among those that are ready, or takes it from them, or away.
func (t *turns) settle(l *hostQueue) {
	share := t.share
	if l.failed > 0 {
		share = 1
	}
	resting := time.Now().Before(l.until)
	switch can := len(l.waiting) > 0 && (t.hurried || l.busy < share && !resting); {
	case can && l.ready == nil:
		l.ready = t.ready.PushBack(l)
		t.some.Signal()
	case !can && l.ready != nil:
		t.ready.Remove(l.ready)
		l.ready = nil
	case len(l.waiting) == 0 && l.busy == 0 && !resting && t.lines[l.host] == l:
		delete(t.lines, l.host)
	}
}

// hurry has all that waits taken at once: it is not asked any more.
func (t *turns) hurry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hurried = true
	for _, l := range t.lines {
		t.settle(l)
	}
	t.some.Broadcast()
}

// close says that nothing is put any more.
func (t *turns) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.some.Broadcast()
}
