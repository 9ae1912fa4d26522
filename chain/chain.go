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
	Awaited  Status = "awaited"  // it had not answered yet when the record was made
	Repeated Status = "repeated" // it is a duplicate, or on this path already
)

// A Hop is one host of the path, with the connection that leads from it to the next.
type Hop struct {
	Status Status
	// Token, where the host gave one.
	Token string
	// From and To are the ends of the connection to the next host: From is this host's. To is not valid
	// where the host was asked about a connection that came to it: the path ends there.
	From, To netip.AddrPort
	Redeemed *report.Redeemed // nil unless Reported or Unknown
	// Detail is what was answered instead of a token; of a Repeated hop, what it repeats.
	Detail string
	// Previous are the hosts that this one asked. That their connections belong to the asked one is this
	// host's word alone.
	Previous []*Hop
	// Via is, for a previous hop, why the next host named it.
	Via []string
}

// Build joins redeemed reports. It returns the last hop of each path: those that no other report names as
// previous, and one of each loop that nothing leads out of. Reports are told apart by token; one that is given
// twice counts once.
func Build(rs []report.Redeemed) []*Hop {
	b := &builder{byToken: map[string]*report.Redeemed{}, named: map[string]bool{}, left: maxHops}
	for i := range rs {
		if b.byToken[rs[i].Token] == nil {
			b.byToken[rs[i].Token] = &rs[i]
			b.order = append(b.order, rs[i].Token)
		}
	}
	for _, r := range rs {
		for _, t := range r.Traceback {
			if t.Asked && t.Kind == "token" && b.byToken[t.Token] != nil {
				b.named[t.Token] = true
				b.named[b.resolve(t.Token)] = true
			}
		}
	}
	var last []*Hop
	shown := map[string]bool{}
	add := func(token string) {
		if token == b.resolve(token) && !shown[token] {
			h := b.hop(token, nil)
			h.tokens(shown)
			last = append(last, h)
		}
	}
	for _, t := range b.order {
		if !b.named[t] {
			add(t)
		}
	}
	for _, t := range b.order {
		add(t)
	}
	return last
}

type builder struct {
	byToken map[string]*report.Redeemed
	order   []string
	named   map[string]bool // tokens that a report names as previous
	left    int             // of maxHops
}

// maxHops bounds the hops: hosts that lie may name each other in more ways than can be drawn.
const maxHops = 10000

// tokens adds the tokens of a hop and of those before it.
func (h *Hop) tokens(to map[string]bool) {
	to[h.Token] = true
	for _, p := range h.Previous {
		p.tokens(to)
	}
}

// hop makes the hop of a token, with those before it. Tokens on the way from the last hop are not visited
// again: a loop of hosts is a loop of tokens.
func (b *builder) hop(token string, way []string) *Hop {
	r := b.byToken[token]
	h := &Hop{Status: Reported, Token: token, Redeemed: r, From: r.Report.Request.Local, To: r.Report.Request.Remote}
	if c := r.Report.Connection; c != nil && c.Direction == host.Inbound {
		h.To = netip.AddrPort{}
	}
	switch r.Report.Kind {
	case report.KindNone:
		h.Status = Unknown
	case report.KindDuplicate:
		h.Status, h.Detail = Repeated, "it was asked before: redeem "+r.Report.SameAs
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
	switch {
	case t.Kind == "token" && b.byToken[t.Token] == nil:
		h.Status = Sealed
	case t.Kind == "token" && b.left == 0:
		h.Status, h.Detail = Repeated, "it is left out: the reports make too many paths"
	case t.Kind == "token":
		b.left--
		next := b.resolve(t.Token)
		if slices.Contains(way, next) {
			h.Status, h.Detail = Repeated, "it is on this path already: the hosts form a loop"
			return h
		}
		known := b.hop(next, way)
		known.Via = h.Via
		return known
	case t.Kind == "legacy":
		h.Status, h.Detail = Legacy, t.Reply
	case t.Kind == "error":
		h.Status, h.Detail = Refused, t.Error
	case t.Answered.IsZero():
		h.Status = Awaited
	default:
		h.Status, h.Detail = Missing, t.Error
	}
	return h
}

// resolve returns the token whose report says what a token at hand stands for: itself, or what it is a
// duplicate of.
func (b *builder) resolve(token string) string {
	r := b.byToken[token]
	if r.Report.Kind == report.KindDuplicate && b.byToken[r.Report.SameAs] != nil {
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
