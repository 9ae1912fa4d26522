package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stopd/stopd"
)

// A following is a connection that is followed back, once in a window: whoever asks later refers to it,
// unless the previous hosts have changed since.
type following struct {
	token    stop.Token
	previous string // who they are
	done     chan struct{}
	records  []stop.Traceback // once done
}

// follow asks the previous hosts of an examined connection and keeps what they answer. None of it reaches
// the requester.
func (s *Server) follow(ctx context.Context, cfg *Config, q stop.Question, f stop.Finding) {
	mine := &following{token: f.Token, previous: signature(f.Previous), done: make(chan struct{})}
	first := mine
	s.followed.update(flow{q.Local, q.Remote}, q.Time, q.Time.Add(cfg.Traceback.Window), func(o *following, known bool) *following {
		if known && o.previous == mine.previous {
			first = o
			return o
		}
		return mine
	})
	if first != mine {
		<-first.done
		records := slices.Clone(first.records)
		for i := range records {
			records[i].SameAs = first.token.String()
		}
		s.keep(ctx, f.Token, records)
		return
	}
	defer close(mine.done)
	records, plan := s.plan(cfg, q, f.Previous)
	if len(plan) > 0 {
		s.keep(ctx, f.Token, records) // under way
	}
	s.ask(ctx, cfg, q, records, plan)
	mine.records = records
	s.keep(ctx, f.Token, records)
}

// signature tells sets of previous hosts apart.
func signature(ps []stop.Previous) string {
	var b strings.Builder
	for _, p := range ps {
		fmt.Fprintf(&b, "%s %s\n", p.Remote, p.Local)
	}
	return b.String()
}

func (s *Server) keep(ctx context.Context, t stop.Token, records []stop.Traceback) {
	if err := s.answerer.KeepTraceback(ctx, t, records); err != nil {
		s.Counters.Failed.Add(1)
		s.log.Error("keep trace-back", "error", err)
	}
}

// plan chooses whom to ask. It returns a record for every candidate, and the indexes of those to be asked.
func (s *Server) plan(cfg *Config, q stop.Question, ps []stop.Previous) ([]stop.Traceback, []int) {
	records := []stop.Traceback{}
	var ask []int
	for _, p := range ps {
		r := stop.Traceback{Previous: p.Ends}
		if len(p.Reasons) > 0 {
			r.SelectedBy = p.Reasons[0]
		}
		switch {
		case !p.Corroborated:
			r.Error = "not asked: only the user's own word speaks for it"
		case p.Remote.Port() == 0 || !p.Local.IsValid():
			r.Error = "not asked: its connection is not known"
		case p.Outbound && !within(p.Remote.Addr(), cfg.Traceback.OutboundTo):
			r.Error = "not asked: this host opened the connection, and asking would tell the other end"
		case !within(p.Remote.Addr(), cfg.Traceback.To):
			r.Error = "not asked: policy"
		case len(ask) >= cfg.Traceback.MaxPrevious:
			r.SelectedBy, r.Error = "bound", "not asked: too many candidates"
		default:
			req := requestTo(q, p)
			r.Asked, r.Request, r.Sent = true, req.String(), time.Now().UTC()
			ask = append(ask, len(records))
		}
		if !r.Asked {
			r.Kind = "none"
		}
		records = append(records, r)
	}
	return records, ask
}

// requestTo is the question for a previous host: same type and SID, about the connection as that host sees
// it, its port first.
func requestTo(q stop.Question, p stop.Previous) stop.Request {
	return stop.Request{Local: uint64(p.Remote.Port()), Remote: uint64(p.Local.Port()), Type: q.Type, SID: q.SID}
}

// ask asks the chosen hosts, all at once, and fills in their records.
func (s *Server) ask(ctx context.Context, cfg *Config, q stop.Question, records []stop.Traceback, plan []int) {
	if len(plan) == 0 {
		return
	}
	select {
	case s.tracebacks <- struct{}{}:
		defer func() { <-s.tracebacks }()
	case <-time.After(cfg.Traceback.Timeout):
		for _, i := range plan {
			r := &records[i]
			r.Asked, r.SelectedBy, r.Request, r.Sent = false, "bound", "", time.Time{}
			r.Kind, r.Error = "none", "not asked: too many trace-backs are under way"
		}
		return
	}
	var wg sync.WaitGroup
	for _, i := range plan {
		wg.Go(func() { s.askOne(ctx, cfg, q, &records[i]) })
	}
	wg.Wait()
}

// askOne asks one previous host, from this host's own end of the connection with it.
func (s *Server) askOne(ctx context.Context, cfg *Config, q stop.Question, r *stop.Traceback) {
	s.Counters.Asked.Add(1)
	c := stop.Client{Source: r.Previous.Local.Addr(), Timeout: cfg.Traceback.Timeout}
	to := netip.AddrPortFrom(r.Previous.Remote.Addr(), cfg.Traceback.Port)
	r.Sent = time.Now().UTC()
	a, err := c.Ask(ctx, to, requestTo(q, stop.Previous{Ends: r.Previous}))
	r.Answered = time.Now().UTC()
	if err != nil {
		r.Kind, r.Error = "none", stop.Printable(err.Error())
		return
	}
	r.Request, r.Reply, r.Kind = a.Sent, a.Line, a.Kind.String()
	switch a.Kind {
	case stop.KindToken:
		r.Token = a.Token.String()
	case stop.KindLegacy:
		r.Error = "legacy: the host disclosed a name instead of a token"
	case stop.KindError:
		r.Error = stop.Printable(string(a.Reply.Error))
	}
}
