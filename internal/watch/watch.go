package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/internal/tokens"
)

// A Watcher asks about what its inputs report.
type Watcher struct {
	Counts Counts

	cfg   Config
	store *tokens.Store
	log   *slog.Logger
	kept  func(tokens.Record)

	turns   *turns
	answers chan answer
	open    sync.WaitGroup  // questions
	end     context.Context // of asking

	mu       sync.Mutex // of all below
	closed   bool       // nothing is taken any more
	hosts    *budget[netip.Addr]
	networks *budget[netip.Prefix]
	repeats  repeats
	own      map[netip.Addr]bool
	ownAt    time.Time
	logs     map[string]*progress
	saved    positions
	lock     *os.File // of the positions; nil while no log is followed
}

// errNotOnBehalf stands before a name. An ident daemon takes the ports of a question on behalf of another host, leaves out the rest,
// and answers for a connection to whoever asks.
const errNotOnBehalf = "no token, and a name is of another connection where ident alone is spoken: "

type answer struct {
	question question
	record   tokens.Record
}

// Times between what is done now and then.
const (
	saveTime   = time.Second
	expireTime = time.Hour
	ownTime    = 10 * time.Second
	// maxKept bounds how many answers are kept in one transaction.
	maxKept  = 1024
	keepTime = time.Minute // of one
	// keepAgain is how long to wait when they could not be.
	keepAgain = 2 * time.Second
)

// New makes a watcher that keeps answers in a store. Whatever is kept is handed to kept, by one goroutine.
func New(cfg Config, store *tokens.Store, log *slog.Logger, kept func(tokens.Record)) *Watcher {
	l := cfg.Limits
	return &Watcher{cfg: cfg, store: store, log: log, kept: kept, turns: newTurns(l.Queue, l.AtOnce, l.RetryAfter.Duration), answers: make(chan answer, maxKept),
		hosts: newBudget[netip.Addr](l.HostPerSecond, l.Burst), networks: newBudget[netip.Prefix](l.NetworkPerSecond, l.Burst),
		repeats: repeats{within: l.Repeat.Duration}, logs: map[string]*progress{}}
}

// An Input reports connections until it or the context ends.
type Input func(ctx context.Context, w *Watcher) error

// Run reads the inputs until they end, asks, and keeps what is answered. When the context ends it begins nothing any more, and waits
// for what is under way; what then was not asked is asked after the next start, as far as it came from a file.
func (w *Watcher) Run(ctx context.Context, inputs ...Input) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.end = ctx
	if w.cfg.Metrics != "" {
		l, err := net.Listen("tcp", w.cfg.Metrics)
		if err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		defer prom.Serve(l, collected{&w.Counts}, w.log)()
	}
	var workers, rest sync.WaitGroup
	for range w.cfg.Limits.AtOnce {
		workers.Go(w.ask)
	}
	defer context.AfterFunc(ctx, w.turns.hurry)()
	rest.Go(w.keep)
	over := make(chan struct{})
	rest.Go(func() { w.now(over) })

	failed := make(chan error, len(inputs))
	for _, in := range inputs {
		go func() { failed <- in(ctx, w) }()
	}
	var errs []error
	for range inputs {
		if err := <-failed; err != nil {
			errs = append(errs, err)
			cancel() // who watches should not find out tomorrow that half of it did not work
		}
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.open.Wait()
	w.turns.close()
	workers.Wait()
	close(w.answers)
	close(over)
	rest.Wait()
	return errors.Join(append(errs, w.save(), w.unlock())...)
}

// now does what is done now and then.
func (w *Watcher) now(over <-chan struct{}) {
	save, expire := time.NewTicker(saveTime), time.NewTicker(expireTime)
	defer save.Stop()
	defer expire.Stop()
	w.expire()
	for {
		select {
		case <-over:
			return
		case <-save.C:
			if err := w.save(); err != nil {
				w.log.Error("how far the logs were read is not kept", "error", err)
			}
		case <-expire.C:
			w.expire()
		}
	}
}

func (w *Watcher) expire() {
	var n int
	host, err := os.Hostname()
	if err == nil {
		n, err = w.store.Expire(context.Background(), host, time.Now(), w.cfg.Retention.Duration)
	}
	if err != nil {
		w.log.Error("old tokens are not dropped", "error", err)
	}
	if n > 0 {
		w.log.Info("tokens dropped after their time", "days", n)
	}
}

// follows takes the file of positions for this watcher alone, when it begins to follow a log, and returns where that was left.
// Two that share it would take each other's places back. It is replaced whenever it is written, so another file is locked.
func (w *Watcher) follows(path string, p *progress) (from place, known bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logs[path] != nil {
		return place{}, false, errors.New("it is followed twice")
	}
	if w.lock == nil {
		f, err := os.OpenFile(w.cfg.Position+".lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return place{}, false, fmt.Errorf("lock position: %w", err)
		}
		if err := lock(f); err != nil {
			return place{}, false, errors.Join(fmt.Errorf("lock position %s: %w", f.Name(), err), f.Close())
		}
		if w.saved, err = readPositions(w.cfg.Position); err != nil {
			return place{}, false, errors.Join(err, f.Close())
		}
		w.lock = f
	}
	w.logs[path] = p
	from, known = w.saved[path]
	return from, known, nil
}

// errTaken says that a file of positions is another watcher's.
var errTaken = errors.New("another watcher has it; the file of positions of each is its own")

func (w *Watcher) unlock() error {
	if w.lock == nil {
		return nil
	}
	return w.lock.Close()
}

// save keeps how far the logs were read.
func (w *Watcher) save() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := maps.Clone(w.saved)
	for path, p := range w.logs {
		if at := p.settled(); at != (place{}) {
			now[path] = at
		}
	}
	if maps.Equal(now, w.saved) {
		return nil
	}
	if err := now.write(w.cfg.Position); err != nil {
		return err
	}
	w.saved = now
	return nil
}

// see takes a reported connection: it chooses whom to ask, and has them asked where the budgets allow it. The place is where its
// line begins in a log, of which p is the progress; nil for what is no file.
func (w *Watcher) see(input string, f flows.Flow, p *progress, before place) {
	if !f.TCP() {
		w.Counts.NoFlow.Add(1)
		return
	}
	qs, fits := w.cfg.choose(input, f)
	if !fits {
		return
	}
	w.Counts.Matched.Add(1)
	now := time.Now()
	until := w.cfg.lateAt(f, now)
	if !now.Before(until) {
		w.Counts.Late.Add(int64(len(qs)))
		return
	}
	allowed := w.admit(qs, now)
	if len(allowed) == 0 {
		return
	}
	var m *mark
	if p != nil {
		m = p.begin(before, len(allowed))
	}
	for _, q := range allowed {
		q.until, q.mark = until, m
		w.enqueue(q)
	}
}

// admit returns the questions for which the budgets have room, and says that they are open.
func (w *Watcher) admit(qs []question, now time.Time) (allowed []question) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	for _, q := range qs {
		if w.allows(q, now) {
			allowed = append(allowed, q)
		}
	}
	w.open.Add(len(allowed))
	return allowed
}

// allows reports whether the budgets have room for a question, and takes it.
func (w *Watcher) allows(q question, now time.Time) bool {
	if w.repeats.has(q, now) {
		w.Counts.Repeated.Add(1)
		return false
	}
	host, network := q.host.Addr(), networkOf(q.host.Addr())
	if !w.hosts.has(host, now) || !w.networks.has(network, now) {
		w.Counts.OverBudget.Add(1)
		return false
	}
	w.hosts.spend(host, now)
	w.networks.spend(network, now)
	w.repeats.add(q, now)
	return true
}

// drop gives a question up that was not asked, so that it is asked when its connection is reported again.
func (w *Watcher) drop(q question, count *atomic.Int64) {
	count.Add(1)
	w.mu.Lock()
	w.repeats.forget(q)
	w.mu.Unlock()
	w.finish(q)
}

// enqueue has a question asked, or drops it where too many wait.
func (w *Watcher) enqueue(q question) {
	switch {
	case w.turns.put(q):
	case w.end.Err() != nil:
		w.leave()
	default:
		w.drop(q, &w.Counts.Dropped)
	}
}

// leave has a question asked after the next start, as far as it came from a file: its mark stays.
func (w *Watcher) leave() {
	w.Counts.Left.Add(1)
	w.open.Done()
}

// finish says that nothing more is done about a question.
func (w *Watcher) finish(q question) {
	q.mark.done()
	w.open.Done()
}

// ask asks the hosts whose turn it is.
func (w *Watcher) ask() {
	for {
		q, ok := w.turns.take()
		if !ok {
			return
		}
		of, again := w.askOne(q)
		if w.turns.done(q.host.Addr(), of) {
			w.Counts.Rested.Add(1)
		}
		if again { // when its host is not left alone any more
			q.tries++
			w.Counts.Retried.Add(1)
			w.enqueue(q)
		}
	}
}

// askOne asks one question, unless it is too late, and reports whether it is to be asked again.
func (w *Watcher) askOne(q question) (of outcome, again bool) {
	if w.end.Err() != nil {
		w.leave()
		return untried, false
	}
	if !time.Now().Before(q.until) {
		w.drop(q, &w.Counts.Late)
		return untried, false
	}
	r, from := q.request(w.ownAddresses())
	client := stop.Client{Timeout: w.cfg.Limits.Timeout.Duration, Source: from}
	w.Counts.Asked.Add(1)
	a, err := client.Ask(context.Background(), q.host, r)
	switch {
	case errors.Is(err, syscall.EACCES): // it is this host that may not ask
		of = untried
	case err != nil:
		of = unreached
	default:
		of = reached
	}
	if of == unreached && q.tries < w.cfg.Limits.Retries {
		return of, true
	}
	w.answers <- answer{q, w.recordOf(q, r, a, err)}
	return of, false
}

// recordOf is what is kept of an answer.
func (w *Watcher) recordOf(q question, r stop.Request, a stop.Answer, err error) tokens.Record {
	record := tokens.Record{Seen: q.flow.Time, Asked: time.Now(), Source: q.flow.Source, Destination: q.flow.Destination,
		FarSource: q.flow.FarSource, FarDestination: q.flow.FarDestination, Host: q.host, Type: q.typ, SID: q.sid,
		Input: q.input, Alert: q.flow.Alert.Name}
	if record.Seen.IsZero() {
		record.Seen = record.Asked
	}
	switch {
	case err != nil:
		w.Counts.Failed.Add(1)
		record.Error = err.Error()
	case a.Kind == stop.KindError:
		w.Counts.Errors.Add(1)
		record.Error = string(a.Reply.Error)
	case a.Kind == stop.KindLegacy && r.For.IsValid():
		w.Counts.Errors.Add(1)
		record.Error = errNotOnBehalf + stop.Printable(a.Reply.UserID)
	case a.Kind == stop.KindLegacy:
		w.Counts.Tokens.Add(1)
		record.Token = "name:" + stop.Printable(a.Reply.UserID)
	default:
		w.Counts.Tokens.Add(1)
		record.Token = a.Token.String()
	}
	return record
}

// keep keeps the answers, as many at once as there are. While they cannot be kept no more is asked, soon.
func (w *Watcher) keep() {
	for first := range w.answers {
		batch := []answer{first}
		for more := true; more && len(batch) < maxKept; {
			select {
			case a, ok := <-w.answers:
				if more = ok; ok {
					batch = append(batch, a)
				}
			default:
				more = false
			}
		}
		records := make([]tokens.Record, len(batch))
		for i, a := range batch {
			records[i] = a.record
		}
		kept := w.keepAll(records)
		for i, a := range batch {
			if kept {
				w.Counts.Kept.Add(1)
				w.kept(records[i])
				a.question.mark.done()
			}
			w.open.Done()
		}
	}
}

// keepAll tries until it works, or the end has come.
func (w *Watcher) keepAll(records []tokens.Record) bool {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), keepTime)
		err := w.store.Add(ctx, records)
		cancel()
		if err == nil {
			return true
		}
		w.log.Error("tokens are not kept", "records", len(records), "error", err)
		if w.end.Err() != nil {
			w.Counts.Unkept.Add(int64(len(records)))
			return false
		}
		select {
		case <-time.After(keepAgain):
		case <-w.end.Done(): // once more
		}
	}
}

// ownAddresses are those of this host: who asks from one of them needs nobody's leave.
func (w *Watcher) ownAddresses() map[netip.Addr]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.own == nil || now.Sub(w.ownAt) > ownTime {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			w.log.Error("own addresses are not known", "error", err)
		}
		w.own, w.ownAt = map[netip.Addr]bool{}, now
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					w.own[ip.Unmap()] = true
				}
			}
		}
	}
	return w.own
}
