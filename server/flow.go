package server

import (
	"context"
	"slices"
	"time"

	"github.com/stopd/stopd"
)

// watch has it told which of the candidates feeds the asked connection, where that can be, and chooses anew whom to ask.
func (tb *Tracebacks) watch(cfg *Config, p *promise, most time.Duration) {
	if cfg.Flow == nil || !p.finding.Watchable {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	fed, err := cfg.Flow(ctx, p.finding.Token)
	if err != nil {
		tb.log.Warn("watch what flows to a connection", "error", err)
		return
	}
	p.choose(cfg, fed)
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

// choose chooses whom to ask by what was told of the candidates. For certain the one alone is asked, if he may be, also where there
// were too many for him to have a record so far; else those first of whom more was told, and as many as may be asked.
func (p *promise) choose(cfg *Config, fed []stop.Fed) {
	most := cfg.Traceback.MaxPrevious
	eligible := p.eligible()
	p.mu.Lock()
	defer p.mu.Unlock()
	certain := -1
	for _, f := range fed {
		i := slices.IndexFunc(p.records, func(r stop.Traceback) bool { return r.Previous == f.Previous.Ends })
		switch {
		case i >= 0:
		case f.Grade == stop.FlowCertain:
			i, p.left = len(p.records), max(0, p.left-1)
			p.records = append(p.records, stop.Traceback{Previous: f.Previous.Ends, SelectedBy: stop.SelectedByFlow, Kind: "none"})
			if why := whyNot(cfg, f.Previous); why != "" {
				p.records[i].Error = "not asked: " + why
			} else {
				eligible = append(eligible, i)
			}
		default:
			continue
		}
		p.records[i].Flow = new(f.Flow)
		if f.Grade == stop.FlowCertain {
			certain = i
		}
	}
	if certain < 0 {
		slices.SortStableFunc(eligible, func(a, b int) int { return p.records[b].Flow.Compare(p.records[a].Flow) })
		p.plan = slices.Sorted(slices.Values(eligible[:min(most, len(eligible))]))
	} else if p.plan = nil; slices.Contains(eligible, certain) {
		p.plan = []int{certain}
	}
	for _, i := range eligible {
		r := stop.Traceback{Previous: p.records[i].Previous, Flow: p.records[i].Flow, SelectedBy: stop.SelectedByFlow}
		switch {
		case slices.Contains(p.plan, i):
			r.Asked, r.Request, r.Sent = true, requestTo(p.finding, r.Previous).String(), time.Now().UTC()
			if certain < 0 && r.Flow.Compare(nil) == 0 {
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
