// Package chain joins what several hosts' tokens stand for into the path of a connection, from where it
// began to the host that was reached. It is pure.
package chain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// Status says what is known of a hop.
type Status string

// Statuses.
const (
	Reported Status = "reported" // its report is at hand
	Sealed   Status = "sealed"   // it gave a token that is not redeemed yet
	Legacy   Status = "legacy"   // it disclosed a name instead of a token
	Refused  Status = "refused"  // it answered an error
	Missing  Status = "missing"  // it did not answer
	Unknown  Status = "unknown"  // it says that it knows nothing of the connection (a decoy)
)

// A Hop is one host of the path, with the connection that leads from it to the next.
type Hop struct {
	Status Status
	// Token, where the host gave one.
	Token string
	// From and To are the ends of the connection to the next host: From is this host's.
	From, To netip.AddrPort
	Redeemed *report.Redeemed // nil unless Reported or Unknown
	// Detail is what was answered instead of a token.
	Detail string
	// Join says how the host's own report joins the connection it was asked about to the previous one:
	// the index of the candidate. It is that host's word alone.
	Previous []*Hop
	// Via is, for a previous hop, why the next host named it.
	Via []string
}

// Build joins redeemed reports. It returns the last hop of each path: those that no other report names as
// previous. Reports are told apart by token; one that is given twice counts once.
func Build(rs []report.Redeemed) []*Hop {
	b := &builder{byToken: map[string]*report.Redeemed{}, named: map[string]bool{}}
	for i := range rs {
		b.byToken[rs[i].Token] = &rs[i]
	}
	hops := map[string]*Hop{}
	var order []string
	for _, r := range rs {
		if hops[r.Token] == nil && r.Report.Kind != report.KindDuplicate {
			order = append(order, r.Token)
			hops[r.Token] = b.hop(r.Token, nil)
		}
	}
	var last []*Hop
	for _, t := range order {
		if !b.named[t] {
			last = append(last, hops[t])
		}
	}
	if last == nil && len(order) > 0 {
		last = append(last, hops[order[0]]) // a loop has no last host
	}
	return last
}

type builder struct {
	byToken map[string]*report.Redeemed
	named   map[string]bool // tokens that a report names as previous
}

// hop makes the hop of a token, with those before it. Tokens on the way from the last hop are not visited
// again: a loop of hosts is a loop of tokens.
func (b *builder) hop(token string, way []string) *Hop {
	r := b.byToken[token]
	h := &Hop{Status: Reported, Token: token, Redeemed: r, From: r.Report.Request.Local, To: r.Report.Request.Remote}
	if c := r.Report.Connection; c != nil && c.Direction == host.Inbound {
		h.From, h.To = h.To, h.From
	}
	if r.Report.Kind == report.KindNone {
		h.Status = Unknown
	}
	way = append(slices.Clone(way), token)
	for _, t := range r.Traceback {
		if t.Asked {
			h.Previous = append(h.Previous, b.previous(r, t, way))
		}
	}
	return h
}

func (b *builder) previous(r *report.Redeemed, t stop.Traceback, way []string) *Hop {
	h := &Hop{Token: t.Token, From: t.Previous.Remote, To: t.Previous.Local, Via: reasons(r, t)}
	switch t.Kind {
	case "token":
		h.Status = Sealed
		next := b.resolve(t.Token)
		if next == "" {
			return h
		}
		b.named[t.Token], b.named[next] = true, true
		if slices.Contains(way, next) {
			h.Status, h.Detail = Sealed, "already on this path: the hosts form a loop"
			return h
		}
		known := b.hop(next, way)
		known.Via = h.Via
		return known
	case "legacy":
		h.Status, h.Detail = Legacy, t.Reply
	case "error":
		h.Status, h.Detail = Refused, t.Error
	default:
		h.Status, h.Detail = Missing, t.Error
	}
	return h
}

// resolve returns the token whose report is at hand for a token: itself, or what it is a duplicate of.
func (b *builder) resolve(token string) string {
	r := b.byToken[token]
	if r == nil {
		return ""
	}
	if r.Report.Kind == report.KindDuplicate && b.byToken[r.Report.SameAs] != nil {
		b.named[token] = true
		return r.Report.SameAs
	}
	return token
}

func reasons(r *report.Redeemed, t stop.Traceback) []string {
	for _, p := range r.Report.Previous {
		if p.Remote == t.Previous.Remote && p.Local == t.Previous.Local {
			return p.Reasons
		}
	}
	return []string{t.SelectedBy}
}

// Paths lists every path that ends at a hop, each from where it begins.
func (h *Hop) Paths() [][]*Hop {
	if len(h.Previous) == 0 {
		return [][]*Hop{{h}}
	}
	var all [][]*Hop
	for _, p := range h.Previous {
		for _, path := range p.Paths() {
			all = append(all, append(path, h))
		}
	}
	return all
}

// Name is what to call the host: its own name and the address it was reached at.
func (h *Hop) Name() string {
	addr := h.From.Addr().String()
	if h.Redeemed != nil && h.Redeemed.Report.Host.Name != "" {
		return fmt.Sprintf("%s (%s)", h.Redeemed.Report.Host.Name, addr)
	}
	return addr
}
