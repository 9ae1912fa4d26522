package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stopd/stopd"
)

// waitingPerSlot is how many trace-backs may have begun for each that may ask.
const waitingPerSlot = 16

// begin starts a trace-back after its reply, and has its record written when that is due. Over the bound it is
// done without asking anybody.
func (s *Server) begin(ctx context.Context, cfg *Config, p *promise, due time.Time) {
	s.promises.begin(p, time.Until(due), func(records []stop.Traceback) { s.keep(ctx, p.token, records) })
	if p.follow == nil {
		return
	}
	if !s.waiting.take(p.by) {
		p.follow(ctx, false)
		return
	}
	s.under.Go(func() {
		defer s.waiting.giveBack(p.by)
		p.follow(ctx, true)
	})
}

// A path is a connection that is followed back. Where only names were asked for, whole reports may still be.
type path struct {
	flow
	full bool
}

// A following is a path that is followed, once in a window: whoever asks later refers to it, unless the
// previous hosts have changed since.
type following struct {
	previous string // who is asked
	of       *promise
}

// follow asks the previous hosts of an examined connection. None of what they answer reaches the requester.
func (s *Server) follow(ctx context.Context, cfg *Config, q stop.Question, f flow, found stop.Finding, mine *promise, room bool) {
	records, plan := s.plan(cfg, q, found.Previous)
	mine.set(records)
	if len(plan) == 0 {
		return
	}
	g := &following{signature(records, plan), mine}
	first, p := g, path{f, q.Type.Full()}
	s.followed.update(p, q.Time, q.Time.Add(cfg.Traceback.Window), func(o *following, known bool) *following {
		if known && o.previous == g.previous {
			first = o
		}
		return first
	})
	if first == g {
		if !s.ask(ctx, cfg, q, mine, records, plan, room) {
			s.followed.drop(p) // nobody was asked, so the next may be
		}
		return
	}
	for _, i := range plan {
		records[i].SameAs = first.of.token.String()
	}
	mine.refer(records, first.of)
}

// signature tells sets of hosts to be asked apart. Other candidates do not count: whoever can make those
// up could have the same hosts asked again and again.
func signature(records []stop.Traceback, plan []int) string {
	var lines []string
	for _, i := range plan {
		lines = append(lines, records[i].Previous.Remote.String()+" "+records[i].Previous.Local.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *Server) keep(ctx context.Context, t stop.Token, records []stop.Traceback) {
	if err := s.answerer.KeepTraceback(ctx, t, records); err != nil {
		s.Counters.Failed.Add(1)
		s.log.Error("keep trace-back", "error", err)
	}
}

// maxNotAsked bounds the records of candidates that are not asked. The report names them all.
const maxNotAsked = 256

// plan chooses whom to ask. It returns a record for every candidate, and the indexes of those to be asked.
// Of those not asked beyond the bound, the last record has the number.
func (s *Server) plan(cfg *Config, q stop.Question, ps []stop.Previous) ([]stop.Traceback, []int) {
	records := []stop.Traceback{}
	var ask []int
	last, left := 0, 0
	for _, p := range ps {
		r := stop.Traceback{Previous: p.Ends}
		if len(p.Reasons) > 0 {
			r.SelectedBy = p.Reasons[0]
		}
		why := whyNot(cfg, p)
		if why == "" && len(ask) >= cfg.Traceback.MaxPrevious {
			r.SelectedBy, why = "bound", "too many candidates"
			s.reached.previous.Add(1)
		}
		switch {
		case why == "":
			req := requestTo(q, p)
			r.Asked, r.Request, r.Sent = true, req.String(), time.Now().UTC()
			ask = append(ask, len(records))
		case len(records)-len(ask) >= maxNotAsked:
			left++
			s.reached.candidates.Add(1)
			continue
		default:
			r.Kind, r.Error = "none", "not asked: "+why
			last = len(records)
		}
		records = append(records, r)
	}
	if left > 0 {
		records[last].Error += fmt.Sprintf("; and %d more candidates, not asked", left)
	}
	return records, ask
}

// whyNot says why a candidate is not to be asked; empty where it may be.
func whyNot(cfg *Config, p stop.Previous) string {
	remote := p.Remote.Addr()
	switch {
	case !p.Corroborated:
		return "only the user's own word speaks for it"
	case p.Remote.Port() == 0 || !p.Local.IsValid():
		return "its connection is not known"
	case p.Elsewhere:
		return "its connection leaves the host from another network namespace"
	case remote.Is6() && remote.IsLinkLocalUnicast() && remote.Zone() == "":
		return "link-local" // on which link is not known
	case p.Outbound && !within(remote, cfg.Traceback.OutboundTo):
		return "this host opened the connection, and asking would tell the other end"
	case !within(remote, cfg.Traceback.To):
		return "policy"
	}
	return ""
}

// requestTo is the question for a previous host: same type and SID, about the connection as that host sees
// it, its port first.
func requestTo(q stop.Question, p stop.Previous) stop.Request {
	return stop.Request{Local: uint64(p.Remote.Port()), Remote: uint64(p.Local.Port()), Type: q.Type, SID: q.SID}
}

// ask asks the chosen hosts, all at once, and fills in their records. It returns false where there was no room
// to ask. All of it takes no longer than the time for one host.
func (s *Server) ask(ctx context.Context, cfg *Config, q stop.Question, mine *promise, records []stop.Traceback, plan []int, room bool) bool {
	began := time.Now()
	if room {
		if room = s.tracebacks.wait(mine.by, cfg.Traceback.Timeout/2); room {
			defer s.tracebacks.giveBack(mine.by)
		}
	}
	if !room {
		s.Counters.OverBound.Add(1)
		for _, i := range plan {
			mine.change(i, stop.Traceback{Previous: records[i].Previous, SelectedBy: "bound", Kind: "none",
				Error: "not asked: too many trace-backs are under way"})
		}
		return false
	}
	left := cfg.Traceback.Timeout - time.Since(began)
	var wg sync.WaitGroup
	for _, i := range plan {
		wg.Go(func() { mine.change(i, s.askOne(ctx, cfg, q, records[i], left)) })
	}
	wg.Wait()
	return true
}

// askOne asks one previous host, from this host's own end of the connection with it, and completes its record.
func (s *Server) askOne(ctx context.Context, cfg *Config, q stop.Question, r stop.Traceback, left time.Duration) stop.Traceback {
	ask := cfg.Ask
	if ask == nil {
		ask = func(ctx context.Context, source netip.Addr, timeout time.Duration, to netip.AddrPort, r stop.Request) (stop.Answer, error) {
			return (&stop.Client{Source: source, Timeout: timeout, Pin: cfg.Peer(to.Addr()).Pin, Certificate: cfg.Certificate}).Ask(ctx, to, r)
		}
	}
	to := netip.AddrPortFrom(r.Previous.Remote.Addr(), cfg.Traceback.Port)
	r.Sent = time.Now().UTC()
	a, err := ask(ctx, r.Previous.Local.Addr(), left, to, requestTo(q, stop.Previous{Ends: r.Previous}))
	r.Answered = time.Now().UTC()
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return stop.Traceback{Previous: r.Previous, SelectedBy: r.SelectedBy, Kind: "none", Error: "not asked: " + stop.Printable(err.Error())}
	}
	s.Counters.Asked.Add(1)
	if err != nil {
		r.Kind, r.Error = "none", stop.Printable(err.Error())
		return r
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
	return r
}
