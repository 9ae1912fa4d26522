package chain

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// accounts takes in the reports, one a token, and leads duplicates to what they repeat.
func (b *builder) accounts(ss []Source) {
	copies := map[string][]*Source{}
	for _, s := range ss {
		s.Traceback = b.supported(s.Redeemed)
		b.leftOut(s.Token, s.Unreadable, "cannot be read")
		b.leftOut(s.Token, s.Further, "were written after the first, and a host writes one")
		copies[s.Token] = append(copies[s.Token], &s)
	}
	tokens := slices.Sorted(maps.Keys(copies))
	if n := len(tokens) - maxReports; n > 0 {
		b.omitted["reports"], tokens = n, tokens[:maxReports]
	}
	for _, t := range tokens {
		a := &account{Source: b.best(copies[t])}
		b.byToken[t] = a
		b.asked = append(b.asked, a)
	}
	b.alikeForCertain()
	for _, a := range b.asked {
		a.of = b.original(a)
		if a.of != a {
			a.of.duplicates = append(a.of.duplicates, a)
		}
	}
	for _, a := range b.asked {
		for _, t := range a.Traceback {
			if p := b.byToken[t.Token]; p != nil && p != a && a.Standing.bundled() {
				p.recordedBy, p.of.recordedBy = a, a // whose token a duplicate's report has in it
			}
		}
	}
}

// supported gives those of a token's trace-back records that its report supports: they are about candidates that it names, or about
// what an owner of the asked connection had accepted, where they say that watching chose it,
// and say that one was asked only where more than the user's own word speaks for it. A host asks nobody else, and the token
// is the hash of the report alone: whoever has had the records in his hands since can have written others.
func (b *builder) supported(r report.Redeemed) []stop.Traceback {
	corroborated := map[stop.Ends]bool{}
	for _, p := range r.Report.Previous {
		e := unmapped(stop.Ends{Remote: p.Remote, Local: p.Local})
		corroborated[e] = corroborated[e] || p.Corroborated
	}
	crowd := accepted(r.Report)
	var some []stop.Traceback
	strange, asked, second := 0, 0, 0
	for _, t := range r.Traceback {
		switch more, named := corroborated[unmapped(t.Previous)]; {
		case certain(t) && slices.ContainsFunc(some, certain):
			second++
		case !named && t.SelectedBy == stop.SelectedByFlow && certain(t) && crowd[unmapped(t.Previous)]:
			some = append(some, t)
		case !named:
			strange++
		case t.Asked && !more:
			asked++
		default:
			some = append(some, t)
		}
	}
	b.leftOut(r.Token, strange, "are about connections that its report does not name")
	b.leftOut(r.Token, asked, "say that hosts were asked for whom its report has the word of a user alone, which no host does")
	b.leftOut(r.Token, second, "say for certain that one more connection feeds the asked one, and a host says that of one: the first counts")
	return some
}

// certain reports whether a record says for certain that its candidate's connection feeds the asked one.
func certain(t stop.Traceback) bool { return t.Flow != nil && t.Flow.Grade == stop.FlowCertain }

// accepted are the connections that the owners of a report's connection had and had not opened. Where they are of too many hosts,
// they are no candidates.
func accepted(r report.Report) map[stop.Ends]bool {
	ends := map[stop.Ends]bool{}
	for _, p := range r.Processes {
		if r.Connection == nil || !slices.Contains(r.Connection.Owners, p.PID) {
			continue
		}
		for _, d := range p.Descriptors {
			if d.Kind != host.TCP || d.Direction == host.Outbound {
				continue
			}
			o := d.Outside()
			ends[unmapped(stop.Ends{Remote: o.Remote, Local: o.Local})] = true
		}
	}
	return ends
}

// alikeForCertain holds the records of several tokens of one connection against each other: who becomes root on a host later may have it
// asked again, and let it say for certain that another is meant. Which of them was first only the host's own clock tells, and that is his then. So where those of
// the best standing say that different ones are meant, none counts; where anybody can have made them, they are left, and it is said.
func (b *builder) alikeForCertain() {
	type connection struct {
		host, boot string
		cookie     uint64 // of the socket; the kernel gives none twice
		local      netip.AddrPort
		remote     netip.AddrPort
	}
	of := map[connection][]*account{}
	var order []connection
	for _, a := range b.asked {
		r := &a.Report
		if r.Connection == nil || r.Connection.Cookie == 0 || !slices.ContainsFunc(a.Traceback, certain) {
			continue
		}
		key := connection{r.Host.Name, r.Host.BootID, r.Connection.Cookie, unmap(r.Request.Local), unmap(r.Request.Remote)}
		if of[key] == nil {
			order = append(order, key)
		}
		of[key] = append(of[key], a)
	}
	meant := func(a *account) stop.Ends {
		return unmapped(a.Traceback[slices.IndexFunc(a.Traceback, certain)].Previous)
	}
	for _, key := range order {
		said := of[key]
		slices.SortStableFunc(said, func(x, y *account) int { return x.Source.compare(y.Source) })
		best := said[0]
		bundled, disputed := best.Standing.bundled(), false
		left := map[*account]bool{}
		for _, a := range said[1:] {
			switch equal := a.Source.compare(best.Source) == 0; {
			case meant(a) == meant(best):
			case bundled && !equal:
				left[a] = true
				b.ofRecords(a.Token, "the token %s says for certain that another connection feeds the asked one than %s does, of better standing and of the same: that is left out", clean(a.Token), clean(best.Token))
			default:
				disputed = true
				b.ofRecords(a.Token, "the tokens %s and %s say for certain, of one connection, that different ones feed it", clean(best.Token), clean(a.Token))
			}
		}
		for _, a := range said {
			if bundled && disputed || left[a] {
				a.Traceback = slices.DeleteFunc(slices.Clone(a.Traceback), certain)
			}
		}
	}
}

// leftOut notes trace-back records that do not count.
func (b *builder) leftOut(token string, n int, why string) {
	if n > 0 {
		b.ofRecords(token, "%d of the trace-back records of the token %s %s: they are left out", n, clean(token), why)
	}
}

// ofRecords notes what is wrong with what a token stands for, once.
func (b *builder) ofRecords(token, format string, args ...any) {
	b.tell(contradiction{kind: AboutRecord, token: token, text: fmt.Sprintf(format, args...)})
}

// tell notes a contradiction of one host, once.
func (b *builder) tell(c contradiction) {
	if !slices.ContainsFunc(b.told, func(d contradiction) bool { return d.token == c.token && d.text == c.text }) {
		b.told = append(b.told, c)
	}
}

// best makes one of the copies of what a token stands for: those of the best standing count, so far as they agree. Where copies
// disagree, that is noted.
func (b *builder) best(copies []*Source) *Source {
	text := func(s *Source) string {
		return string(report.EncodeTraceback(s.Traceback)) + string(report.Encode(s.Report))
	}
	slices.SortFunc(copies, func(x, y *Source) int {
		return cmp.Or(x.compare(y), strings.Compare(text(x), text(y)))
	})
	best := *copies[0]
	equal := 1
	for equal < len(copies) && copies[equal].compare(&best) == 0 {
		equal++
	}
	a := agreement{of: map[stop.Ends]stop.Traceback{}, not: map[stop.Ends]bool{}}
	for _, s := range copies[:equal] {
		a.take(s.Traceback)
	}
	best.Traceback = a.records()
	best.disputed = a.not
	if len(a.not) > 0 {
		b.ofRecords(best.Token, "the copies of what the token %s stands for differ, and one of them was altered: what they do not agree about is left out", clean(best.Token))
	}
	for _, s := range copies[1:] {
		switch {
		case s.Log != "" && s.Log != best.Log:
			b.ofRecords(best.Token, "what the token %s stands for is in two logs, %s and %s: it counts as in the first", clean(best.Token), clean(best.Log), clean(s.Log))
		case !slices.Equal(report.Encode(best.Report), report.Encode(s.Report)):
			b.ofRecords(best.Token, "two copies of what its token %s stands for differ: one of them was altered", clean(best.Token))
		case s.compare(&best) == 0:
		case newer(&best, s) && !newer(s, &best):
			best.stale = true
		case !newer(s, &best):
			b.ofRecords(best.Token, "two copies of what its token %s stands for differ, and the one of better standing counts: one of them was altered", clean(best.Token))
		}
	}
	return &best
}

// newer reports whether one copy has all that another has, and perhaps answers beyond.
func newer(old, s *Source) bool {
	is := map[stop.Ends]stop.Traceback{}
	for _, t := range s.Traceback {
		is[t.Previous] = t
	}
	for _, t := range old.Traceback {
		if now, ok := is[t.Previous]; !ok || !earlier(t, now) {
			return false
		}
	}
	return true
}

// An agreement is what copies of one token's trace-back records say alike. They have a record of each candidate.
type agreement struct {
	order []stop.Ends
	of    map[stop.Ends]stop.Traceback
	not   map[stop.Ends]bool
}

// take takes in a copy. One that has no records was made before there were any.
func (a *agreement) take(ts []stop.Traceback) {
	if len(ts) == 0 {
		return
	}
	first := len(a.order) == 0
	here := map[stop.Ends]bool{}
	for _, t := range ts {
		e := t.Previous
		was, known := a.of[e]
		switch {
		case here[e]:
			a.not[e] = true
		case !known:
			a.order, a.of[e] = append(a.order, e), t
			a.not[e] = a.not[e] || !first
		case earlier(was, t):
			a.of[e] = t
		case !earlier(t, was):
			a.not[e] = true
		}
		here[e] = true
	}
	for _, e := range a.order {
		a.not[e] = a.not[e] || !here[e]
	}
	maps.DeleteFunc(a.not, func(_ stop.Ends, not bool) bool { return !not })
}

// records are those that are agreed upon, in order.
func (a *agreement) records() []stop.Traceback {
	var ts []stop.Traceback
	for _, e := range a.order {
		if !a.not[e] {
			ts = append(ts, a.of[e])
		}
	}
	return ts
}

// earlier reports whether one record can have become another: it is the same, or was under way and has an answer now.
func earlier(x, y stop.Traceback) bool {
	if x.Asked && y.Asked && x.Answered.IsZero() {
		return x.Previous == y.Previous && x.SelectedBy == y.SelectedBy && (x.Token == "" || x.Token == y.Token)
	}
	return slices.Equal(report.EncodeTraceback([]stop.Traceback{x}), report.EncodeTraceback([]stop.Traceback{y}))
}
