package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
	"github.com/stopd/stopd/internal/recorder"
)

// A Recorder says how a host remembers connections and processes.
type Recorder struct {
	Memory int           // octets
	Keep   time.Duration // for how long
	Own    int           // the pid of who looks at others' sockets by copies, whose connections are none; 0 is none
	// Restore fills a history in which nothing is yet, of events since a time. Remember does not wait for it, nor for what follows; nil is to have
	// Remember wait until it remembers.
	Restore func(h *recorder.History, since uint64)
	// Failed is told why nothing is remembered for now, and nil when it goes on; nil is to tell nobody.
	Failed func(error)
}

// Where remembering failed it is begun again after againFirst, then after twice as long, and after againMost at most.
const (
	againFirst = time.Second
	againMost  = time.Minute
)

// Remember lets the host remember connections and processes from now on.
func (h *Host) Remember(r Recorder) error {
	if err := errors.Join(sameProcesses(), sameClock()); err != nil {
		return err
	}
	if !h.uids.all { // the kernel has others
		return errors.New("the daemon is in a user namespace, which has numbers of its own for users")
	}
	events, err := bpf.OpenEvents(r.Own)
	if err != nil {
		return err
	}
	p := &past{Recorder: r, h: h, events: events, first: make(chan error, 1), off: host.ErrNotFound, whole: sinceBoot()}
	p.closing, p.cancel = context.WithCancel(context.Background())
	if p.history, err = recorder.New(r.Memory, p.whole); err != nil {
		events.Close()
		return err
	}
	if !h.past.CompareAndSwap(nil, p) {
		events.Close()
		return errors.New("the host remembers already")
	}
	p.running.Go(p.run)
	if r.Restore == nil {
		if err := <-p.first; err != nil {
			h.past.CompareAndSwap(p, nil)
			p.close()
			return err
		}
	}
	return nil
}

// run remembers until the past is closed.
func (p *past) run() {
	if p.Restore != nil {
		p.Restore(p.history, p.until())
	}
	for pause := againFirst; ; pause = min(2*pause, againMost) {
		begun := time.Now()
		err := p.remember()
		p.end(err)
		if time.Since(begun) > againMost {
			pause = againFirst
		}
		if p.closing.Err() != nil {
			return
		}
		p.tell(err)
		select {
		case <-p.closing.Done():
			return
		case <-time.After(pause):
		}
	}
}

// remember begins, and goes on until it fails or is stopped.
func (p *past) remember() error {
	p.mu.Lock()
	events := p.events
	p.mu.Unlock()
	if events == nil {
		var err error
		if events, err = bpf.OpenEvents(p.Own); err != nil {
			return err
		}
		if err := p.goOn(events); err != nil {
			events.Close()
			return err
		}
	}
	if err := p.sweep(events); err != nil {
		p.began(err)
		return err
	}
	p.mu.Lock()
	p.off = nil
	p.mu.Unlock()
	p.began(nil)
	p.tell(nil)
	return p.follow(events)
}

// began says what became of the first beginning.
func (p *past) began(err error) {
	select {
	case p.first <- err:
	default:
	}
}

// goOn begins again with events that are new.
func (p *past) goOn(events *bpf.Events) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.closing.Err(); err != nil {
		return err
	}
	now := sinceBoot()
	p.history.Off(p.whole, now)
	p.events, p.whole, p.before, p.lost, p.owed = events, now, p.before+p.lost, 0, false
	return nil
}

// end notes why nothing is remembered, and frees what that took.
func (p *past) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = err
	if p.events != nil {
		p.events.Close()
		p.events = nil
	}
}

// tell tells once that it failed, and once that it goes on.
func (p *past) tell(err error) {
	if p.Failed != nil && p.told != (err != nil) {
		p.Failed(err)
	}
	p.told = err != nil
}

func (p *past) close() {
	p.cancel()
	p.mu.Lock()
	if p.events != nil {
		p.events.Stop()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// until is when all that had happened was remembered.
func (p *past) until() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole
}

// isOff says why nothing is remembered now; nil where it is.
func (p *past) isOff() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.off
}

// unjoined says why it is not told by what processes can be joined; nil where it is.
func (p *past) unjoined() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.events == nil { // it has failed since what is asked about was found
		return p.off
	}
	return p.events.Unjoined
}

// Unremembered says what of the past the kernel does not tell, and why; nothing where it tells all, or where nothing is remembered.
func (h *Host) Unremembered() (lacks []error) {
	p := h.past.Load()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.events == nil { // it has failed
		return nil
	}
	if err := p.events.Untold; err != nil {
		lacks = append(lacks, fmt.Errorf("who holds an accepted connection is not known before it ends: %w", err))
	}
	if err := p.events.Unjoined; err != nil {
		lacks = append(lacks, fmt.Errorf("what processes had in common is not known: %w", err))
	}
	return lacks
}

// catchUp returns the past with all that has happened so far. The error is [host.ErrNotFound] where nothing is remembered.
func (h *Host) catchUp() (*past, error) {
	p := h.past.Load()
	if p == nil {
		return nil, host.ErrNotFound
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.read(); err != nil {
		return nil, fmt.Errorf("remember: %w", err)
	}
	return p, nil
}

// Keep calls keep with the history, and with the time until which all that happened is in it. Events are entered meanwhile. The error is
// [host.ErrNotFound] where nothing is remembered yet, or that of keep.
func (h *Host) Keep(keep func(h *recorder.History, at uint64) error) error {
	at := sinceBoot()
	p, err := h.catchUp()
	if errors.Is(err, host.ErrNotFound) {
		return err
	}
	if err != nil { // it failed: what there was until then
		p = h.past.Load()
		at = p.until()
	}
	return keep(p.history, at)
}

// A Recorded is what there is to say of remembering: since when, how much of the room is taken, and how many events were lost.
type Recorded struct {
	recorder.Fill
	Running bool
	Since   time.Time
	Lost    uint64
}

// Recorded returns how remembering goes; false where nothing is remembered, nor to be.
func (h *Host) Recorded() (Recorded, bool) {
	p := h.past.Load()
	if p == nil {
		return Recorded{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off == host.ErrNotFound { // the history is being filled
		return Recorded{}, true
	}
	h.readClock()
	f := p.history.Fill()
	return Recorded{f, p.off == nil, p.time(f.Begun), p.before + p.lost + f.Missing}, true
}

// Scope says where what is remembered holds: until the host starts anew, in this PID namespace, whose numbers may be another's later, and for this
// network namespace.
func (h *Host) Scope() (string, error) {
	pids, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", fmt.Errorf("tell this boot and its namespaces: %w", err)
	}
	b, err := os.ReadFile("/proc/1/stat") // whose start nobody has who has its number later
	if err != nil {
		return "", fmt.Errorf("tell this boot and its namespaces: %w", err)
	}
	first, err := parseStat(b)
	if err != nil {
		return "", fmt.Errorf("tell this boot and its namespaces: %w", err)
	}
	if h.facts.BootID == "" {
		return "", errors.New("tell this boot and its namespaces: the boot has no ID")
	}
	return fmt.Sprintf("boot %s, %s since %d, net:[%d] %d", h.facts.BootID, pids, first.start, h.netns, h.cookie), nil
}

// why says what a loss is.
func (p *past) why(l recorder.Loss) string {
	from, to := p.time(l.From).Format(time.RFC3339), p.time(l.To).Format(time.RFC3339)
	switch l.Kind {
	case recorder.Start:
		return "it is older than what is remembered, which begins at " + to
	case recorder.Ring:
		return fmt.Sprintf("events were lost between %s and %s", from, to)
	case recorder.Full:
		return fmt.Sprintf("there was no room for all that happened between %s and %s", from, to)
	case recorder.Forgotten:
		return fmt.Sprintf("what ended before %s is not remembered any more", to)
	case recorder.Unjoined:
		return fmt.Sprintf("which pipes, UNIX sockets and terminals processes had that ended before %s is not remembered any more", to)
	}
	return fmt.Sprintf("nothing was remembered between %s and %s, when the daemon or its recorder was started anew", from, to)
}

// incomplete reports whether a loss is of what came, or happened to it.
func incomplete(l recorder.Loss) bool {
	return l.Kind == recorder.Ring || l.Kind == recorder.Off || l.Kind == recorder.Full
}

// laterMissing reports whether one that came after a flow's latest connection may be missing for a loss. Where its end was not noticed, that can be since it was established.
func laterMissing(c recorder.Connection, l recorder.Loss) bool {
	ended := c.Closed
	if c.Unsure || c.Closed == 0 {
		ended = c.Opened
	}
	return incomplete(l) && l.To >= ended
}

// connectionGaps says what may be missing of a flow's latest connection: others who held it, its end, and a later one.
func (p *past) connectionGaps(c recorder.Connection) (gaps []host.Gap) {
	for _, l := range p.history.Losses(c.Opened, sinceBoot()) {
		if incomplete(l) && (c.Closed == 0 || l.From <= c.Closed) {
			gaps = append(gaps, host.Gap{What: "who held the connection", Why: p.why(l)})
		}
		if laterMissing(c, l) {
			gaps = append(gaps, host.Gap{What: "which connection it was", Why: p.why(l) + ": a later one of the same ends may be missing"})
		}
	}
	if c.More {
		gaps = append(gaps, host.Gap{What: "who held the connection", Why: "others held it as well: remembered are the first, and the last that is another"})
	}
	if c.Unsure {
		gaps = append(gaps, host.Gap{What: "the connection's end", Why: "it was not noticed: it closed before " + p.time(c.Closed).Format(time.RFC3339Nano)})
	}
	return gaps
}
