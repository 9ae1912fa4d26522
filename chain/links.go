package chain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A linkKey tells connections apart: two hosts and the ends as one of them has them.
type linkKey struct {
	from, to *node
	src, dst netip.AddrPort
}

// A link is a connection in the making, in the order of the path.
type link struct {
	linkKey
	own       []*account // reports of the host that it comes from, that were asked about it
	ends      []*account // reports of the host that it leads to, that were asked about it
	questions []question
	linked    string
}

// A question is a host's record of a previous one.
type question struct {
	by        *account
	record    stop.Traceback
	candidate *trace.Previous // nil where the report has none with these ends
	status    Status
	detail    string
	answer    *account // what the token stands for, its own report and not what that repeats
	twin      *account // without an answer, the report of the very connection
}

type join struct {
	at       *account
	in, out  *link
	question int // of in
}

// namings finds what names reports at hand: the records with their tokens, and candidates that have the very ends of a
// connection that one report alone was asked about, however that one came.
func (b *builder) namings() {
	own := map[stop.Ends][]*account{}
	for _, a := range b.asked {
		if a.of == a && !a.outvouched && !inbound(a) && (a.Report.Kind == report.KindSV || a.Report.Kind == report.KindID) {
			near, remote := a.ends()
			e := stop.Ends{Remote: near, Local: remote}
			own[e] = append(own[e], a)
		}
	}
	for _, a := range b.asked {
		if a.of != a || a.outvouched {
			continue
		}
		a.questions = b.ask(a)
		for i := range a.questions {
			q := &a.questions[i]
			if q.answer == nil {
				e := q.record.Previous
				q.twin = b.twin(own[unmapped(e)], a, q.record)
			}
		}
	}
	name := func(p, by *account, e stop.Ends) {
		if p != nil && len(p.of.named) < maxAsked {
			p.of.named = append(p.of.named, naming{by, e})
		}
	}
	for _, a := range b.asked {
		for _, q := range a.questions {
			name(q.answer, a, q.record.Previous)
		}
	}
	for _, a := range b.asked {
		for _, q := range a.questions {
			name(q.twin, a, q.record.Previous)
		}
	}
}

// denied reports whether a report cannot be the answer to a question, since the host that was asked gave a token that is not at hand: anybody
// can have made it up, and not anybody the record of that token.
func denied(t stop.Traceback, asks, a *account) bool {
	return t.Token != "" && a.anybodys() && !asks.anybodys()
}

// twin is the report of a host about a connection that another host has asked about without getting a token that is at hand: the
// one for which most speaks. Where several hosts have such reports, that is noted, and none is taken.
func (b *builder) twin(about []*account, asks *account, t stop.Traceback) *account {
	about = slices.DeleteFunc(slices.Clone(about), func(a *account) bool {
		return a == asks || denied(t, asks, a)
	})
	if len(about) == 0 {
		return nil
	}
	rank := func(x, y *account) int { return x.Source.compare(y.Source) }
	best := slices.MinFunc(about, func(x, y *account) int {
		return cmp.Or(rank(x, y), -strings.Compare(x.Report.Kind, y.Report.Kind), strings.Compare(x.Token, y.Token)) // SV before ID
	})
	r := &best.Report.Request
	taken := clean(best.Token) + " counts, for which most speaks"
	others := slices.DeleteFunc(about, func(a *account) bool { return a.node == best.node })
	if len(others) == 0 {
		return best
	}
	if slices.ContainsFunc(others, func(a *account) bool { return rank(a, best) == 0 }) {
		best, taken = nil, "none is taken for it"
	}
	b.ofRecords(asks.Token, "reports of several hosts are about %s -> %s, of which %s has asked one: %s", endText(r.Local), endText(r.Remote), named(asks.node), taken)
	return best
}

// connections makes the connections that reports were asked about, those that they name as previous, and what
// joins them.
func (b *builder) connections() {
	for _, a := range b.asked {
		if a.of == a && !a.outvouched {
			b.own(a)
		}
	}
	for _, a := range b.asked {
		if a.of == a {
			b.previous(a)
		}
	}
}

// own makes the connection that a host was asked about. It leads to the host that named it, or to whoever is at the
// other end.
func (b *builder) own(a *account) {
	near, remote := a.ends()
	denies := a.Report.Kind == report.KindNone // it knows of no connection: who asked chose the ends
	switch {
	case denies && len(a.named) == 0:
	case len(a.named) > 0:
		n := a.named[0]
		for _, m := range a.named {
			if agree(a, m.ends) {
				n = m
				break
			}
		}
		a.out = b.link(a.node, n.by.node, near, remote)
	case inbound(a):
		a.out = b.link(b.far(a.node, remote.Addr()), a.node, remote, near)
		if a.out != nil {
			a.out.ends = append(a.out.ends, a)
		}
	default:
		a.out = b.link(a.node, b.far(a.node, remote.Addr()), near, remote)
	}
	if a.out != nil && a.out.from == a.node && !denies {
		a.out.own = append(a.out.own, a)
	}
	switch a.Report.Kind {
	case report.KindNone:
		a.node.statuses[Unknown] = true
	case report.KindDuplicate:
		a.node.statuses[Repeated] = true
	default:
		a.node.statuses[Reported] = true
	}
}

// agree reports whether a host was asked about the connection that another one asked about.
func agree(a *account, e stop.Ends) bool {
	near, remote := a.ends()
	return near == unmap(e.Remote) && remote == unmap(e.Local)
}

// translated reports whether two hosts can mean one connection whose addresses are translated between them:
// where they differ, one of them is of a private network.
func translated(a *account, e stop.Ends) bool {
	near, remote := a.ends()
	here, there := unmap(e.Remote), unmap(e.Local)
	differ := func(x, y netip.AddrPort) bool {
		return x == y || x.Addr() != y.Addr() && public(x.Addr()) != public(y.Addr())
	}
	return !agree(a, e) && differ(near, here) && differ(remote, there)
}

// previous makes the connections that a report has been led back to, asked about or not.
func (b *builder) previous(a *account) {
	for _, q := range a.questions {
		in := b.incoming(a, q)
		if in == nil {
			continue
		}
		in.questions = append(in.questions, q)
		if q.answer == nil && q.twin == nil {
			in.from.statuses[q.status] = true
		}
		if a.out != nil && a.out != in && a.out.from == a.node {
			b.joins = append(b.joins, join{a, in, a.out, len(in.questions) - 1})
		}
	}
}

// incoming is the connection that a question is about: that of the report that answers it, or another with the ends
// that the asking host has.
func (b *builder) incoming(a *account, q question) *link {
	src, dst := unmap(q.record.Previous.Remote), unmap(q.record.Previous.Local)
	if p := q.twin; p != nil && p.out != nil && p.out.from == p.node && p.out.to == a.node {
		return p.out
	}
	if q.answer == nil {
		from := b.far(a.node, src.Addr())
		if len(from.accounts) > 0 && !slices.ContainsFunc(from.accounts, func(p *account) bool { return !denied(q.record, a, p) }) {
			b.ofRecords(a.Token, "%s gave the token %s when %s asked it; %s is another, which anybody can have made", endText(netip.AddrPortFrom(src.Addr(), 0)), clean(q.record.Token), named(a.node), clean(from.accounts[0].Token))
			from = b.unknown(a.node, src.Addr())
		}
		return b.link(from, a.node, src, dst)
	}
	p := q.answer.of
	if p.out != nil && p.out.from == p.node && p.out.to == a.node && p.out.linked == "" {
		p.out.linked = "token"
		return p.out
	}
	if p.out != nil && p.out.from == p.node && p.out.to == a.node && agree(p, q.record.Previous) {
		return p.out
	}
	in := b.link(p.node, a.node, src, dst)
	if in != nil && in.linked == "" {
		in.linked = "token"
	}
	return in
}

// link returns the connection with these ends; nil over the bound.
func (b *builder) link(from, to *node, src, dst netip.AddrPort) *link {
	key := linkKey{from, to, src, dst}
	if l := b.byKey[key]; l != nil {
		return l
	}
	if len(b.links) >= maxConnections {
		b.omitted["connections"]++
		return nil
	}
	l := &link{linkKey: key}
	b.byKey[key] = l
	b.links = append(b.links, l)
	return l
}

// ask lists what a host asked, and the first candidates of those that it did not ask.
func (b *builder) ask(a *account) []question {
	candidates := map[stop.Ends]*trace.Previous{}
	for i := range a.Report.Previous {
		p := &a.Report.Previous[i]
		if e := (stop.Ends{Remote: p.Remote, Local: p.Local}); candidates[e] == nil {
			candidates[e] = p
		}
	}
	var qs []question
	add := func(bound int, what string, yield func(func(question))) {
		n := 0
		yield(func(q question) {
			if n++; n <= bound {
				q.by, q.candidate = a, candidates[q.record.Previous]
				if q.status == NotAsked && !q.corroborated() {
					q.status = Claimed
				}
				qs = append(qs, q)
			} else {
				b.omitted[what]++
			}
		})
	}
	recorded := map[stop.Ends]bool{}
	add(maxAsked, "questions", func(yield func(question)) {
		for _, t := range a.Traceback {
			recorded[t.Previous] = true
			if t.Asked {
				yield(b.asking(a, t))
			}
		}
	})
	add(maxNotAsked, "candidates", func(yield func(question)) {
		for _, t := range a.Traceback {
			if !t.Asked {
				yield(question{record: t, status: NotAsked, detail: strings.TrimPrefix(t.Error, "not asked: ")})
			}
		}
		for _, p := range a.Report.Previous {
			e := stop.Ends{Remote: p.Remote, Local: p.Local}
			if !recorded[e] {
				recorded[e] = true
				yield(question{record: stop.Traceback{Previous: e}, status: NotAsked, detail: a.unrecorded(e)})
			}
		}
	})
	return qs
}

// copiesDiffer is why there is no record of a candidate where copies of it do not agree.
const copiesDiffer = "the copies of the record differ"

// unrecorded says why there is no record of a candidate.
func (a *account) unrecorded(e stop.Ends) string {
	if a.disputed[e] {
		return copiesDiffer
	}
	if a.Report.Request.SID == "" {
		return "the request was not recursive (" + a.Report.Request.Type + ")"
	}
	return "there is no record of whom the host asked"
}

// asking says what became of one question.
func (b *builder) asking(a *account, t stop.Traceback) question {
	q := question{record: t}
	switch p := b.byToken[t.Token]; {
	case t.Kind == "token" && p != nil && p != a && !answers(p, t):
		q.status, q.detail = Refused, "the token of another question's report"
		b.tell(contradiction{kind: AboutRequest, token: a.Token, text: fmt.Sprintf("%s was asked %q and answered with the token of a report of %s, which was asked about %s -> %s: %s is not put on the path for it",
			clean(t.Previous.Remote.Addr().Unmap().String()), clean(t.Request), clean(p.Report.Host.Name), endText(p.Report.Request.Local), endText(p.Report.Request.Remote), clean(p.Report.Host.Name))})
	case t.Kind == "token" && b.byToken[t.Token] != nil && b.byToken[t.Token] != a:
		q.status, q.answer = Reported, b.byToken[t.Token]
	case t.Kind == "token" && t.Token == a.Token:
		q.status, q.detail = Refused, "the token of the host that asked"
	case t.Kind == "token":
		q.status = Sealed
	case t.Kind == "legacy":
		q.status, q.detail = Legacy, t.Reply
	case t.Kind == "error":
		q.status, q.detail = Refused, t.Error
	case t.Answered.IsZero():
		q.status = Awaited
	default:
		q.status, q.detail = Missing, t.Error
	}
	return q
}

// answers reports whether a report can be the asked host's answer to a question. Any host may answer with a token that it got of another
// one, which has nothing to do with it. The host was asked at an address that is its own, or, behind one that translates addresses, just this: what the
// line says is translated by nobody.
func answers(p *account, t stop.Traceback) bool {
	at := t.Previous.Remote.Addr().Unmap()
	if local(p) == at || public(at) && has(p.Report.Host.Addresses, at) {
		return true
	}
	sent, err := stop.ParseRequest([]byte(t.Request))
	r := p.Report.Request
	return err == nil && sent.Local == uint64(r.Local.Port()) && sent.Remote == uint64(r.Remote.Port()) && sent.Type.String() == r.Type &&
		(!sent.Type.Recursive() || fmt.Sprint(sent.SID) == r.SID)
}

// reasons are why a host was named.
func (q question) reasons() []string {
	if q.candidate != nil {
		return q.candidate.Reasons
	}
	if q.record.SelectedBy == "" {
		return nil
	}
	return []string{q.record.SelectedBy}
}

// corroborated reports whether more than the user's own word speaks for it. Who was asked has more.
func (q question) corroborated() bool {
	if q.candidate != nil {
		return q.candidate.Corroborated
	}
	return q.record.Asked
}

// direction is what the host that a connection leads to says of it.
func (q question) direction() host.Direction {
	if q.candidate != nil {
		return q.candidate.Direction
	}
	return host.UnknownDirection
}

// passesOn reports whether a host has passed a connection on for another one.
func passesOn(r *report.Report) bool {
	return r.Forwarded != nil || slices.ContainsFunc(r.Previous, func(p trace.Previous) bool { return slices.Contains(p.Reasons, trace.ReasonNAT) }) &&
		(r.Connection == nil || r.Connection.Owners == nil)
}

func unmapped(e stop.Ends) stop.Ends {
	return stop.Ends{Remote: unmap(e.Remote), Local: unmap(e.Local)}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
