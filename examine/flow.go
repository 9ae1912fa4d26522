package examine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

const (
	// watchWindow is for how long a process is watched.
	watchWindow = 500 * time.Millisecond
	// maxWatchable is of how many questions it is known which process would be watched. Older ones give way.
	maxWatchable = 64
	// What a process took it may not have sent yet when it is looked at: where that alone is in the way of certainty, so often and so far apart it is looked at again.
	maxSettling, settling = 5, 20 * time.Millisecond
)

// errUnwatched says that nobody is to be watched for a token.
var errUnwatched = errors.New("no process is to be watched for it")

// Watchables are what processes could be watched, by the tokens of the questions. The zero value has none. Its methods may be called from several
// goroutines.
type Watchables struct {
	mu     sync.Mutex
	tokens [maxWatchable]stop.Token
	of     [maxWatchable]trace.Watchable
	next   int
}

func (w *Watchables) add(t stop.Token, of trace.Watchable) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[w.next], w.of[w.next] = t, of
	w.next = (w.next + 1) % maxWatchable
}

// take returns what is known for a token, once.
func (w *Watchables) take(t stop.Token) (of trace.Watchable, ok bool) {
	if w == nil {
		return of, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.tokens[:], t)
	if i < 0 || t == (stop.Token{}) {
		return of, false
	}
	of = w.of[i]
	w.tokens[i], w.of[i] = stop.Token{}, trace.Watchable{}
	return of, true
}

// Flow watches the process that holds the connection of a question's token, and tells of its candidates what passed. It is told
// once for a token.
func (x *Examiner) Flow(ctx context.Context, t stop.Token) ([]stop.Fed, error) {
	w, ok := x.Watchables.take(t)
	if !ok {
		return nil, errUnwatched
	}
	window := watchWindow
	if end, bounded := ctx.Deadline(); bounded {
		window = min(window, time.Until(end)/2) // it has to begin and end as well
	}
	transfers, err := x.Watch(ctx, w.Process, window)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", w.Process.PID, err)
	}
	var feeds []stop.Fed
	settled := map[uint64]bool{}
	for looks := 1; ; looks++ {
		again, unsettled, err := x.feeds(ctx, w, transfers, settled)
		switch {
		case err != nil && looks == 1:
			return nil, fmt.Errorf("look at process %d: %w", w.Process.PID, err)
		case err != nil:
			return feeds, nil // what was told before holds
		}
		feeds = again
		if looks == maxSettling || !unsettled {
			return feeds, nil
		}
		select {
		case <-time.After(settling):
		case <-ctx.Done():
			return feeds, nil
		}
	}
}

// feeds grades the candidates by what the process has now, and reports whether that may be told better later. Settled is what the looks before found; see [trace.Watched.Feeds]. Those that it has no more are left out.
func (x *Examiner) feeds(ctx context.Context, w trace.Watchable, transfers []host.Transfer, settled map[uint64]bool) (fed []stop.Fed, unsettled bool, err error) {
	snap, err := x.Host.Snapshot(ctx)
	if err != nil {
		return nil, false, err
	}
	defer snap.Close()
	p, err := snap.Process(ctx, w.Process.PID)
	if err != nil {
		return nil, false, err
	}
	connections := map[uint64]host.Descriptor{}
	for _, d := range p.Descriptors {
		if d.Kind == host.TCP {
			connections[d.Inode] = d
		}
	}
	now := trace.Watched{Transfers: transfers}
	var ok bool
	if now.Asked, ok = connections[w.Asked]; !ok || p.ID() != w.Process {
		return nil, false, host.ErrNotFound
	}
	delete(connections, w.Asked)
	var of []trace.Previous
	add := func(inode uint64, previous func(host.Descriptor) trace.Previous) {
		if d, ok := connections[inode]; ok {
			now.Candidates, of = append(now.Candidates, d), append(of, previous(d))
			delete(connections, inode)
		}
	}
	for _, c := range w.Candidates {
		add(c.Inode, func(host.Descriptor) trace.Previous { return c.Previous })
	}
	named := len(of)
	for _, inode := range w.Crowd {
		add(inode, w.OfCrowd)
	}
	now.Others = slices.Collect(maps.Values(connections))
	if r, err := snap.Remembered(ctx, p.ID()); err == nil {
		now.Held = r.Held
	}
	others := func(objects []host.Object) bool {
		return slices.ContainsFunc(objects, func(o host.Object) bool {
			holders, err := snap.Holders(ctx, o)
			return err != nil || slices.ContainsFunc(holders, func(h host.Holder) bool { return h.PID != p.PID && h.Mode.Writes() })
		})
	}
	heard, memory := trace.Heard(p)
	// Who holds the asked connection as well may send by it.
	now.Hears, now.Shares = others(append(heard, now.Asked.Object)), others(memory)
	// What could not be read may be a way to hear.
	now.Hears = now.Hears || slices.ContainsFunc(snap.Gaps(), func(g host.Gap) bool { return g.PID == 0 || g.PID == p.PID })
	facts, _ := x.Host.Facts(ctx)
	for i, f := range now.Feeds(settled) {
		unsettled = unsettled || w.Service && f.Unsettled
		if f.Grade == trace.Certain && !w.Service {
			f.Grade = trace.Supported
		}
		if i < named || f.Grade == trace.Certain {
			fed = append(fed, stop.Fed{Previous: candidate(of[i], facts.NetNS), Flow: stop.Flow{Grade: string(f.Grade), There: f.There, Back: f.Back, Signs: append([]string{}, f.Signs...)}})
		}
	}
	return fed, unsettled, nil
}
