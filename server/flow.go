package server

import (
	"context"
	"slices"
	"time"

	"github.com/stopd/stopd"
)

// watch has it told which of the candidates feeds the asked connection, where that can be, and chooses anew whom to ask.
func (tb *Tracebacks) watch(cfg *Config, p *promise, most time.Duration) {
	if cfg.Flow == nil || !p.finding.Watchable || len(p.eligible()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	fed, err := cfg.Flow(ctx, p.finding.Token)
	if err != nil {
		tb.log.Warn("watch what flows to a connection", "error", err)
		return
	}
	p.choose(fed, cfg.Traceback.MaxPrevious)
}

// eligible are the records of candidates that may be asked, be it that there are too many of them.
func (p *promise) eligible() (of []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.records {
		if r.Asked || r.SelectedBy == selectedByBound {
			of = append(of, i)
		}
	}
	return of
}

// choose chooses whom to ask by what was told of the candidates. For certain the one alone is asked, if he may be;
// else those first of whom more was told, and as many as may be asked.
func (p *promise) choose(fed []stop.Fed, most int) {
	eligible := p.eligible()
	p.mu.Lock()
	defer p.mu.Unlock()
	certain := -1
	for _, f := range fed {
		i := slices.IndexFunc(p.records, func(r stop.Traceback) bool { return r.Previous == f.Previous })
		if i < 0 {
			continue
		}
		p.records[i].Flow = new(f.Flow)
		if f.Grade == stop.FlowCertain {
			certain = i
		}
	}
	if certain < 0 {
		slices.SortStableFunc(eligible, func(a, b int) int { return p.records[b].Flow.Rank() - p.records[a].Flow.Rank() })
		p.plan = slices.Sorted(slices.Values(eligible[:min(most, len(eligible))]))
	} else if p.plan = nil; slices.Contains(eligible, certain) {
		p.plan = []int{certain}
	}
	for _, i := range eligible {
		r := stop.Traceback{Previous: p.records[i].Previous, Flow: p.records[i].Flow, SelectedBy: selectedByFlow}
		switch {
		case slices.Contains(p.plan, i):
			r.Asked, r.Request, r.Sent = true, requestTo(p.finding, r.Previous).String(), time.Now().UTC()
			if certain < 0 && r.Flow.Rank() == 0 {
				r.SelectedBy = p.records[i].SelectedBy
			}
		case certain >= 0:
			r.Kind, r.Error = "none", "not asked: another connection feeds the asked one"
		default:
			r.SelectedBy, r.Kind, r.Error = selectedByBound, "none", "not asked: "+tooMany
		}
		p.records[i] = r
	}
}
