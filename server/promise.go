package server

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stopd/stopd"
)

// A promise is the one trace-back record that the token of a recursive question will have, whatever the token
// stands for: a report, a duplicate, nothing. All are written the same time after what the token stands for, so that
// who watches the store grow does not learn which question was followed.
type promise struct {
	finding stop.Finding // without the candidates, which are in the records
	by      payer        // of the trace-back
	plan    []int        // the records of hosts to be asked

	mu      sync.Mutex
	begun   bool
	records []stop.Traceback
	left    int      // candidates that have no record
	vain    bool     // watching told nothing
	same    *promise // that has the answers for those of the records that refer to it

	timer   *time.Timer
	deliver func()
}

// recordAfter is how long after the record of its token a trace-back is recorded: the reply has left and whoever was
// asked has answered by then, or had the time to.
func recordAfter(cfg *Config, t stop.Type) time.Duration {
	return cfg.Traceback.Timeout + cfg.Traceback.Timeout/10 + cfg.Slots.of(t)
}

// begin reports whether this is the first that it is called.
func (p *promise) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.begun
	p.begun = true
	return first
}

func (p *promise) record(i int) stop.Traceback {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records[i]
}

// change replaces one record.
func (p *promise) change(i int, r stop.Traceback) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records[i] = r
}

// told notes whether watching told anything.
func (p *promise) told(anything bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vain = !anything
}

// untold reports whether watching has told nothing.
func (p *promise) untold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.vain
}

// asked reports whether the host at the other end of a connection is asked.
func (p *promise) asked(e stop.Ends) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.records, func(r stop.Traceback) bool { return r.Previous == e && r.Asked })
}

// notAsked says of all hosts to be asked why they are not.
func (p *promise) notAsked(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.plan {
		p.records[i] = stop.Traceback{Previous: p.records[i].Previous, SelectedBy: selectedByBound, Kind: "none", Error: "not asked: " + why}
	}
}

// refer has the answers filled in from an earlier promise, as they are when this one is due.
func (p *promise) refer(to *promise) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.same = to
	for _, i := range p.plan {
		p.records[i].SameAs = to.finding.Token.String()
	}
}

// due gives what is to be recorded. Of those that are not asked the last says how many more there are.
func (p *promise) due() []stop.Traceback {
	records, left := p.answers()
	for i, r := range slices.Backward(records) {
		if left > 0 && !r.Asked {
			records[i].Error += fmt.Sprintf("; and %d more candidates, not asked", left)
			break
		}
	}
	return records
}

// answers are the records as they are now, and how many candidates have none.
func (p *promise) answers() (records []stop.Traceback, left int) {
	p.mu.Lock()
	records, left = slices.Clone(p.records), p.left
	same := p.same
	p.mu.Unlock()
	if same == nil {
		return records, left
	}
	all, _ := same.answers()
	for _, known := range all {
		i := slices.IndexFunc(records, func(r stop.Traceback) bool { return known.Previous == r.Previous })
		switch {
		case i < 0 && known.SelectedBy == stop.SelectedByFlow: // who was told when there were too many
			known.SameAs = same.finding.Token.String()
			records = append(records, known)
		case i >= 0 && (records[i].SameAs != "" || records[i].SelectedBy == selectedByBound): // whom it asked may be another than this one planned to
			known.SameAs = same.finding.Token.String()
			records[i] = known
		}
	}
	return records, left
}

// ended says of those that have not answered that they did not in time: there is no later record.
func ended(records []stop.Traceback) []stop.Traceback {
	for i, r := range records {
		if r.Asked && r.Kind == "" {
			records[i].Answered, records[i].Kind, records[i].Error = time.Now().UTC(), "none", "no answer before this was recorded"
		}
	}
	return records
}

// promises are those that are open, by their tokens.
type promises struct {
	mu      sync.Mutex
	limit   int
	reached uint64 // how often the bound was met
	open    map[stop.Token]*promise
	ended   bool // no more are taken
	writing sync.WaitGroup
}

var (
	errPromises   = errors.New("too many trace-backs are promised")
	errPromised   = errors.New("one is promised for that token")
	errNoPromise  = errors.New("no trace-back is promised for that token, or it has begun")
	errNoMoreWork = errors.New("the trace-backs have ended")
)

// add has a promise's record written after a time.
func (ps *promises) add(p *promise, after time.Duration, write func([]stop.Traceback)) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch {
	case ps.ended:
		return errNoMoreWork
	case ps.open[p.finding.Token] != nil:
		return errPromised
	case len(ps.open) >= ps.limit:
		ps.reached++
		return errPromises
	}
	ps.writing.Add(1)
	var once sync.Once
	p.deliver = func() {
		once.Do(func() {
			defer ps.writing.Done()
			if p.begin() {
				p.notAsked("its reply had not left")
			}
			write(ended(p.due()))
			ps.mu.Lock()
			delete(ps.open, p.finding.Token)
			ps.mu.Unlock()
		})
	}
	ps.open[p.finding.Token] = p
	p.timer = time.AfterFunc(after, p.deliver)
	return nil
}

// begin returns what is promised for a token, the first time, and counts it among what is under way.
func (ps *promises) begin(t stop.Token, under *sync.WaitGroup) (*promise, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.open[t]
	if p == nil || ps.ended || !p.begin() {
		return nil, errNoPromise
	}
	under.Add(1)
	return p, nil
}

// end takes no more, and lets none begin.
func (ps *promises) end() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.ended = true
}

// flush writes all that are open now. There is no adding to them any more.
func (ps *promises) flush() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.open {
		if p.timer.Stop() {
			go p.deliver()
		}
	}
}
