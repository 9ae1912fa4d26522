package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stopd/stopd"
)

// A path is a connection that is followed back by questions of one type: to who asks for more, less is no answer.
type path struct {
	connection uint64
	by         stop.Type
}

// A following is a path that is followed, once in a window: whoever asks later refers to it, unless the
// previous hosts have changed since.
type following struct {
	previous string // who is asked
	of       *promise
}

// follow asks the previous hosts of an examined connection, or refers to who asked them.
func (tb *Tracebacks) follow(p *promise, room bool) {
	cfg := tb.config.Load()
	g := &following{signature(p), p}
	first, key := g, path{p.finding.Connection.ID, p.finding.Type}
	now := time.Now()
	tb.followed.update(key, now, now.Add(cfg.Traceback.Window), func(o *following, known bool) *following {
		if known && o.previous == g.previous {
			first = o
		}
		return first
	})
	switch {
	case first != g && tb.again(cfg, p, first.of, room, now):
		tb.followed.update(key, now, now.Add(cfg.Traceback.Window), func(*following, bool) *following { return g })
	case first != g:
		p.refer(first.of)
	case !tb.ask(cfg, p, room, now):
		tb.followed.drop(key) // nobody was asked, so the next may be
	}
}

// signature tells sets of hosts to be asked apart. Other candidates do not count: whoever can make those
// up could have the same hosts asked again and again.
func signature(p *promise) string {
	var lines []string
	for _, i := range p.plan {
		lines = append(lines, p.records[i].Previous.Remote.String()+" "+p.records[i].Previous.Local.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// maxNotAsked bounds the records of candidates that are not asked. The report names them all.
const maxNotAsked = 256

// selectedByBound is what chose who is asked where a bound did, and none of the candidate's own reasons.
const selectedByBound = "bound"

const tooMany = "too many candidates"

// plan chooses whom to ask. It returns a record for every candidate, the indexes of those to be asked, and how many are left without a record.
func (tb *Tracebacks) plan(cfg *Config, f stop.Finding) (records []stop.Traceback, ask []int, left int) {
	records = []stop.Traceback{}
	for _, p := range f.Previous {
		r := stop.Traceback{Previous: p.Ends}
		if len(p.Reasons) > 0 {
			r.SelectedBy = p.Reasons[0]
		}
		why := whyNot(cfg, p)
		if why == "" && len(ask) >= cfg.Traceback.MaxPrevious {
			r.SelectedBy, why = selectedByBound, tooMany
			tb.previous.Add(1)
		}
		switch {
		case why == "":
			req := requestTo(f, p)
			r.Asked, r.Request, r.Sent = true, req.String(), time.Now().UTC()
			ask = append(ask, len(records))
		case len(records)-len(ask) >= maxNotAsked:
			left++
			tb.candidates.Add(1)
			continue
		default:
			r.Kind, r.Error = "none", "not asked: "+why
		}
		records = append(records, r)
	}
	return records, ask, left
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
	case p.OnBehalf && !cfg.Forwards:
		return "its connection is with another host, and this one is not set up to ask on behalf of others ([nat])"
	case p.Outbound && !p.OnBehalf && !within(remote, cfg.Traceback.OutboundTo):
		return "this host opened the connection, and asking would tell the other end"
	case !within(remote, cfg.Traceback.To):
		return "policy"
	}
	return ""
}

// requestTo is the question for a previous host: same type and SID, about the connection as that host sees
// it, its port first. Where that is with another host than this one, it is on behalf of that.
func requestTo(f stop.Finding, p stop.Previous) stop.Request {
	r := stop.Request{Local: uint64(p.Remote.Port()), Remote: uint64(p.Local.Port()), Type: f.Type, SID: f.SID}
	if p.OnBehalf {
		r.For = p.Local.Addr().Unmap().WithZone("")
	}
	return r
}

// ask asks the chosen hosts, all at once, and fills in their records. It returns false where nobody was asked. All of it takes no longer than the time for one host since it began.
func (tb *Tracebacks) ask(cfg *Config, p *promise, room bool, began time.Time) bool {
	if room = room && tb.asking.wait(p.by, cfg.Traceback.Timeout/2); !room {
		tb.Counters.OverBound.Add(1)
		p.notAsked("too many trace-backs are under way")
		return false
	}
	defer tb.asking.giveBack(p.by)
	tb.watch(cfg, p, (cfg.Traceback.Timeout-time.Since(began))/2)
	tb.askChosen(cfg, p, began)
	return len(p.plan) > 0
}

// askChosen asks the chosen hosts.
func (tb *Tracebacks) askChosen(cfg *Config, p *promise, began time.Time) {
	left := cfg.Traceback.Timeout - time.Since(began)
	var wg sync.WaitGroup
	for _, i := range p.plan {
		wg.Go(func() { p.change(i, tb.askOne(cfg, p.record(i), left)) })
	}
	wg.Wait()
}

// askOne asks one previous host what was planned, and completes its record: from this host's own end of the connection with it, or, on
// behalf of another, from wherever that host is reached.
func (tb *Tracebacks) askOne(cfg *Config, r stop.Traceback, left time.Duration) stop.Traceback {
	c := stop.Client{Timeout: left, Pin: cfg.peer(r.Previous.Remote.Addr()).Pin}
	request, err := stop.ParseRequest([]byte(r.Request))
	if !request.For.IsValid() {
		c.Source = r.Previous.Local.Addr()
	}
	r.Sent = time.Now().UTC()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	var a stop.Answer
	if err == nil && c.Pin != "" && cfg.Shown != nil {
		c.Certificate, err = cfg.Shown(ctx)
	}
	if err == nil {
		a, err = c.Ask(ctx, netip.AddrPortFrom(r.Previous.Remote.Addr(), cfg.Traceback.Port), request)
	}
	r.Answered = time.Now().UTC()
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES) {
		return stop.Traceback{Previous: r.Previous, SelectedBy: r.SelectedBy, Kind: "none", Error: "not asked: " + stop.Printable(err.Error()), Flow: r.Flow}
	}
	tb.Counters.Asked.Add(1)
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
