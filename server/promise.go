package server

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/stopd/stopd"
)

// A promise is the one trace-back record that the token of a recursive question will have, whatever the token
// stands for: a report, a duplicate, nothing. All are written the same time after what the token stands for, so that
// who watches the store grow does not learn which question was followed.
type promise struct {
	token  stop.Token
	source netip.Prefix
	by     payer                                // of the trace-back
	follow func(ctx context.Context, room bool) // nil where there is nobody to ask

	mu      sync.Mutex
	records []stop.Traceback
	same    *promise // that has the answers for those of the records that refer to it

	timer   *time.Timer
	deliver func()
}

// recordAfter is how long after the record of its token a trace-back is recorded: the reply has left and whoever was
// asked has answered by then, or had the time to.
func recordAfter(cfg *Config, t stop.Type) time.Duration {
	return cfg.Traceback.Timeout + cfg.Traceback.Timeout/10 + cfg.Slots.of(t)
}

// set is what there is to record from now on.
func (p *promise) set(records []stop.Traceback) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = slices.Clone(records)
}

// change replaces one record.
func (p *promise) change(i int, r stop.Traceback) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records[i] = r
}

// refer has the answers filled in from an earlier promise, as they are when this one is due.
func (p *promise) refer(records []stop.Traceback, to *promise) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records, p.same = slices.Clone(records), to
}

// due gives what is to be recorded.
func (p *promise) due() []stop.Traceback {
	p.mu.Lock()
	records, same := slices.Clone(p.records), p.same
	p.mu.Unlock()
	if same == nil {
		return records
	}
	for _, known := range same.due() {
		for i, r := range records {
			if r.SameAs != "" && known.Previous == r.Previous {
				records[i], records[i].SameAs = known, r.SameAs
			}
		}
	}
	return records
}

// promises are those that are open. Room is taken for them before any work is done.
type promises struct {
	room    *shares
	mu      sync.Mutex
	open    map[*promise]bool
	writing sync.WaitGroup
}

// promiseShare is the part of what is left that one source may have, as with room in the store.
const promiseShare = 8

// begin has a promise's record written after a time.
func (ps *promises) begin(p *promise, after time.Duration, write func([]stop.Traceback)) {
	ps.writing.Add(1)
	var once sync.Once
	p.deliver = func() {
		once.Do(func() {
			defer ps.writing.Done()
			write(p.due())
			ps.mu.Lock()
			delete(ps.open, p)
			ps.mu.Unlock()
			ps.room.giveBack(payer{source: p.source})
		})
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.open[p] = true
	p.timer = time.AfterFunc(after, p.deliver)
}

// flush writes all that are open now.
func (ps *promises) flush() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for p := range ps.open {
		if p.timer.Stop() {
			go p.deliver()
		}
	}
}
