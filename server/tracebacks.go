package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/stopd/stopd"
)

// A KeepTraceback keeps what became of the previous hosts of a token.
type KeepTraceback func(ctx context.Context, t stop.Token, records []stop.Traceback) error

// Tracebacks are the other half of answering: they are told whom each token leads back to, ask the previous hosts once
// its reply has left, and have recorded what became of them. None of it is for whoever speaks to the requester. Their
// configuration may be replaced while they run.
type Tracebacks struct {
	keep   KeepTraceback
	config atomic.Pointer[Config]
	log    *slog.Logger

	promises promises
	followed *table[path, *following]
	begun    *shares
	asking   *shares
	watching *shares

	under                sync.WaitGroup // what is asked
	previous, candidates atomic.Uint64  // how often these bounds were met

	Counters Counters
}

// waitingPerSlot is how many trace-backs may have begun for each that may ask.
const waitingPerSlot = 16

// promisesPerPlace is how many records may be due for each for which a [Server] has room. It gives the room back when a record
// is due, and writing may take a while.
const promisesPerPlace = 2

// NewTracebacks returns trace-backs whose records are kept by a function. Of the configuration they use Slots,
// Limits.Table and Traceback; the bounds Table and Parallel are those of the first.
func NewTracebacks(keep KeepTraceback, c *Config) *Tracebacks {
	tb := &Tracebacks{
		keep: keep, log: c.Logger,
		promises: promises{limit: promisesPerPlace * c.Limits.Table, open: map[stop.Token]*promise{}},
		followed: newTable[path, *following](c.Limits.Table),
		begun:    newShares(waitingPerSlot*c.Traceback.Parallel, slotShare),
		asking:   newShares(c.Traceback.Parallel, slotShare),
		watching: newShares(watchesWanted, slotShare),
	}
	tb.config.Store(c)
	return tb
}

// Configure replaces the configuration. The bounds Table and Parallel stay as they were at the start.
func (tb *Tracebacks) Configure(c *Config) { tb.config.Store(c) }

// Found takes what a token leads back to, before anybody has the token, and plans whom to ask. The token's record is
// due from now on, whether they are asked or not.
func (tb *Tracebacks) Found(_ context.Context, f stop.Finding) error {
	cfg := tb.config.Load()
	if !cfg.tracesBack(f.Type) {
		return fmt.Errorf("promise trace-back: a question of type %s has none", f.Type)
	}
	p := &promise{finding: f, by: payer{source: Source(f.Requester)}}
	if f.Connection != (stop.Connection{}) {
		p.by.owner, p.by.owned = f.Connection.Owner, true
	}
	p.records, p.plan, p.left = tb.plan(cfg, f)
	p.finding.Previous = nil
	if err := tb.promises.add(p, recordAfter(cfg, f.Type), func(rs []stop.Traceback) { tb.record(f.Token, rs) }); err != nil {
		return fmt.Errorf("promise trace-back: %w", err)
	}
	return nil
}

// Begin has the previous hosts asked that a token leads back to. Over the bound it is done without asking anybody.
func (tb *Tracebacks) Begin(_ context.Context, t stop.Token) error {
	p, err := tb.promises.begin(t, &tb.under)
	switch {
	case err != nil:
		return fmt.Errorf("begin trace-back: %w", err)
	case len(p.plan) == 0 && !p.finding.Watchable:
	case tb.begun.take(p.by):
		tb.under.Go(func() {
			defer tb.begun.giveBack(p.by)
			tb.follow(p, true)
		})
	default:
		tb.follow(p, false)
	}
	tb.under.Done() // it was counted until here, so that Wait misses nothing
	return nil
}

// Wait waits until those that are asked have answered, or the context has ended. Then all records that are due are
// written at once, and nothing is taken any more.
func (tb *Tracebacks) Wait(ctx context.Context) error {
	tb.promises.end()
	err := waitFor(ctx, &tb.under)
	tb.promises.flush()
	tb.promises.writing.Wait()
	return err
}

// Counted gives what the trace-backs counted.
func (tb *Tracebacks) Counted(context.Context) (Counted, error) {
	return Counted{tb.Counters.Counts(), tb.Bounds()}, nil
}

func (tb *Tracebacks) record(t stop.Token, records []stop.Traceback) {
	if err := tb.keep(context.Background(), t, records); err != nil {
		tb.Counters.Failed.Add(1)
		tb.log.Error("keep trace-back", "error", err)
	}
}
