package server

import (
	"context"
	"slices"
	"time"

	"github.com/stopd/stopd"
)

// watchesWanted is how many may wait to have a process watched, or have one: one is watched at a time, and whoever asks most must leave room for the
// next to wait.
const watchesWanted = 2

// watch has it told which of the candidates feeds the asked connection, where that can be, and chooses anew whom to ask. Who waits too long goes without.
func (tb *Tracebacks) watch(cfg *Config, p *promise, most time.Duration) {
	if cfg.Flow == nil || !p.finding.Watchable {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	by := payer{source: p.by.source} // a service that is asked about has one owner, whoever its clients are
	if !tb.watching.wait(by, most) {
		p.told(false)
		tb.log.Warn("watch what flows to a connection", "error", "too many are to be watched")
		return
	}
	defer tb.watching.giveBack(by)
	fed, err := cfg.Flow(ctx, p.finding.Token)
	p.told(err == nil && slices.ContainsFunc(fed, func(f stop.Fed) bool { return f.Flow.Compare(nil) > 0 || f.Grade == stop.FlowCertain }))
	if err != nil {
		tb.log.Warn("watch what flows to a connection", "error", err)
		return
	}
	p.choose(cfg, fed)
}

// again watches again for a path that is followed, where that told nothing for who asked first, and asks whoever it means for certain now. It returns false where
// nobody else was asked than then.
func (tb *Tracebacks) again(cfg *Config, p, first *promise, room bool, began time.Time) bool {
	if !p.finding.Watchable || !first.untold() || !room || !tb.asking.wait(p.by, cfg.Traceback.Timeout/2) {
		return false
	}
	defer tb.asking.giveBack(p.by)
	records, plan := slices.Clone(p.records), p.plan
	tb.watch(cfg, p, (cfg.Traceback.Timeout-time.Since(began))/2)
	if len(p.plan) == 1 {
		his := p.record(p.plan[0])
		if his.Flow != nil && his.Flow.Grade == stop.FlowCertain && !first.asked(his.Previous) {
			tb.askChosen(cfg, p, began)
			return true
		}
	}
	p.planned(records, plan)
	return false
}

// planned has those asked who were to be before it was chosen anew, and keeps what was told. Who has a record only since then keeps it.
func (p *promise) planned(records []stop.Traceback, plan []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range records {
		records[i].Flow = p.records[i].Flow
	}
	for _, i := range p.plan {
		if i >= len(records) {
			plan = append(slices.Clone(plan), i)
		}
	}
	p.records, p.plan = append(records, p.records[len(records):]...), plan
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
			// A process of this host has the connection, so nobody is asked on behalf of another.
			r.Asked, r.Request, r.Sent = true, requestTo(p.finding, stop.Previous{Ends: r.Previous}).String(), time.Now().UTC()
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
