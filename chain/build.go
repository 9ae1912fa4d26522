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

// Build joins redeemed reports. They are told apart by token; of two copies of one, that of better standing counts, and of
// two of equal standing that with more answers.
func Build(ss []Source) *Chain {
	b := &builder{
		byToken: map[string]*account{}, at: map[netip.Addr]*node{}, known: map[string]*node{},
		byKey: map[linkKey]*link{}, omitted: map[string]int{},
	}
	b.accounts(ss)
	b.namings()
	b.reporters()
	b.connections()
	b.compare()
	c := b.chain()
	c.paths()
	c.begin()
	c.next()
	return c
}

// A builder has the chain in the making. All of its lists are in an order that follows from the reports and
// not from that in which they were given.
type builder struct {
	asked   []*account          // every report, by token
	byToken map[string]*account // the same
	nodes   []*node
	known   map[string]*node     // hosts without a report, by what they are known by
	at      map[netip.Addr]*node // public addresses of hosts with reports; nil where two claim it
	links   []*link
	byKey   map[linkKey]*link
	joins   []join
	omitted map[string]int
	told    []contradiction
}

// An account is one report on its way into the chain.
type account struct {
	*Source
	of         *account // what it is a duplicate of, itself where it is none
	duplicates []*account
	node       *node
	out        *link // the connection that was asked about
	questions  []question
	named      []naming
}

// A naming is another host's word that this report is that of a previous host, and the connection as that host has it.
type naming struct {
	by   *account
	ends stop.Ends
}

// A node is a host in the making.
type node struct {
	key       string // tells nodes apart, and orders them
	accounts  []*account
	addresses map[netip.Addr]bool
	statuses  map[Status]bool
	index     int
}

// accounts takes in the reports, one a token, and leads duplicates to what they repeat.
func (b *builder) accounts(ss []Source) {
	copies := map[string][]*Source{}
	for _, s := range ss {
		s.Traceback = b.borneOutBy(s.Redeemed)
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
	for _, a := range b.asked {
		a.of = b.original(a)
		if a.of != a {
			a.of.duplicates = append(a.of.duplicates, a)
		}
	}
}

// borneOutBy gives those of a token's trace-back records that its report bears out: they are about candidates that it names,
// and say that one was asked only where more than the user's own word speaks for it. A host asks nobody else, and the token
// is the hash of the report alone: whoever has had the records in his hands since can have written others.
func (b *builder) borneOutBy(r report.Redeemed) []stop.Traceback {
	corroborated := map[stop.Ends]bool{}
	for _, p := range r.Report.Previous {
		e := unmapped(stop.Ends{Remote: p.Remote, Local: p.Local})
		corroborated[e] = corroborated[e] || p.Corroborated
	}
	var borne []stop.Traceback
	strange, asked := 0, 0
	for _, t := range r.Traceback {
		switch more, named := corroborated[unmapped(t.Previous)]; {
		case !named:
			strange++
		case t.Asked && !more:
			asked++
		default:
			borne = append(borne, t)
		}
	}
	b.unborne(r.Token, strange, "are about connections that its report does not name")
	b.unborne(r.Token, asked, "say that hosts were asked for whom its report has the word of a user alone, which no host does")
	return borne
}

// unborne notes trace-back records that are left out.
func (b *builder) unborne(token string, n int, why string) {
	if n > 0 {
		b.ofRecords(token, "%d of the trace-back records of the token %s %s: they are left out", n, clean(token), why)
	}
}

// ofRecords notes what is wrong with the records of a token, once.
func (b *builder) ofRecords(token, format string, args ...any) {
	c := contradiction{kind: AboutRecord, token: token, text: fmt.Sprintf(format, args...)}
	if !slices.ContainsFunc(b.told, func(d contradiction) bool { return d.token == c.token && d.text == c.text }) {
		b.told = append(b.told, c)
	}
}

// best chooses the copy of a token's records that has the best standing, and of those the one with the most answers: one
// that was redeemed early has fewer. Where copies disagree, that is noted.
func (b *builder) best(copies []*Source) *Source {
	text := func(s *Source) string {
		return string(report.EncodeTraceback(s.Traceback)) + string(report.Encode(s.Report))
	}
	answered := func(s *Source) (n int) {
		for _, t := range s.Traceback {
			if !t.Asked || !t.Answered.IsZero() {
				n++
			}
		}
		return n
	}
	copies = slices.SortedFunc(slices.Values(copies), func(x, y *Source) int {
		return cmp.Or(x.Standing.compare(y.Standing), cmp.Compare(answered(y), answered(x)), strings.Compare(text(x), text(y)))
	})
	best := copies[0]
	for _, s := range copies[1:] {
		switch {
		case extends(best, s):
		case best.Standing != s.Standing && extends(s, best):
			b.ofRecords(best.Token, "a copy of what the token %s stands for has more answers than the one of better standing, which counts: make a bundle of it anew", clean(best.Token))
		default:
			b.ofRecords(best.Token, "two copies of what its token %s stands for differ: one of them was altered", clean(best.Token))
		}
	}
	return best
}

// extends reports whether a copy has what an earlier one has, and answers beyond.
func extends(full, early *Source) bool {
	if !slices.Equal(report.Encode(full.Report), report.Encode(early.Report)) {
		return false
	}
	answered := map[stop.Ends]stop.Traceback{}
	for _, t := range full.Traceback {
		answered[t.Previous] = t
	}
	for _, t := range early.Traceback {
		if now, ok := answered[t.Previous]; !ok || t.Asked && !t.Answered.IsZero() && (now.Kind != t.Kind || now.Reply != t.Reply || now.Token != t.Token) {
			return false
		}
	}
	return true
}

// original is the report that a duplicate repeats, where it is at hand. Liars may repeat each other in a ring.
func (b *builder) original(a *account) *account {
	seen := map[*account]bool{}
	for at := a; !seen[at]; {
		seen[at] = true
		if at.Report.Kind != report.KindDuplicate {
			return at
		}
		next := b.byToken[at.Report.SameAs]
		if next == nil {
			return at
		}
		at = next
	}
	return a
}

// reporters makes the hosts that have reports. Two reports are of one host where it has the same name, and
// either was asked at the same address or says that it has both, of one boot. A name alone is anybody's, and so is an
// address of a private network.
func (b *builder) reporters() {
	byName := map[string][]*account{}
	for _, a := range b.asked {
		byName[a.Report.Host.Name] = append(byName[a.Report.Host.Name], a)
	}
	for _, a := range b.asked {
		for _, other := range byName[a.Report.Host.Name] {
			if other.node != nil && sameHost(a, other) {
				a.node = other.node
				break
			}
		}
		if a.node == nil {
			a.node = b.node("report " + a.Token)
		}
		a.node.accounts = append(a.node.accounts, a)
		a.node.addresses[local(a)] = true
	}
	for _, a := range b.asked {
		addr := local(a)
		if !public(addr) || !a.borneOut() {
			continue
		}
		other, taken := b.at[addr]
		switch {
		case !taken:
			b.at[addr] = a.node
		case other != nil && other != a.node:
			b.at[addr] = nil
			b.told = append(b.told, contradiction{kind: AboutName, nodes: []*node{other, a.node},
				text: fmt.Sprintf("two hosts answer at %s: %s and %s", addr, named(other), named(a.node))})
		}
	}
}

// borneOut reports whether the address that a report was asked at is the one at which others asked, where any did.
func (a *account) borneOut() bool {
	return len(a.named) == 0 || slices.ContainsFunc(a.named, func(n naming) bool {
		return n.ends.Remote.Addr().Unmap() == local(a)
	})
}

func (b *builder) node(key string) *node {
	n := &node{key: key, addresses: map[netip.Addr]bool{}, statuses: map[Status]bool{}, index: len(b.nodes)}
	b.nodes = append(b.nodes, n)
	return n
}

func local(a *account) netip.Addr { return a.Report.Request.Local.Addr().Unmap() }

func sameHost(x, y *account) bool {
	hx, hy := &x.Report.Host, &y.Report.Host
	oneBoot := hx.BootID != "" && hx.BootID == hy.BootID
	if local(x) == local(y) {
		return oneBoot || public(local(x))
	}
	return oneBoot && has(hx.Addresses, local(y)) && has(hy.Addresses, local(x))
}

// maxAddresses bounds the addresses of a host that are looked at.
const maxAddresses = 256

func has(as []netip.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(as[:min(len(as), maxAddresses)], func(b netip.Addr) bool { return b.Unmap() == a })
}

// shared are address blocks that many networks use at once, beside those that [netip.Addr] knows: between a
// provider and its customers (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// public reports whether an address means the same host wherever it is used.
func public(a netip.Addr) bool {
	return a.IsValid() && a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a) && a.Zone() == ""
}

// far is the host that another one knows by an address: a reporter, where one answers there and the address
// is nobody else's. It is the same for all who know a public address, and apart for each who knows another.
func (b *builder) far(by *node, a netip.Addr) *node {
	a = a.Unmap()
	key := fmt.Sprintf("at %x %s", a.As16(), a)
	if public(a) {
		if n := b.at[a]; n != nil {
			return n
		}
	} else {
		if by.addresses[a] {
			return by
		}
		key += " of " + by.key
	}
	n := b.known[key]
	if n == nil {
		n = b.node(key)
		b.known[key] = n
	}
	if a.IsValid() {
		n.addresses[a] = true
	}
	return n
}

// status is the one that says most of a node.
func (n *node) status() Status {
	for _, s := range statuses {
		if n.statuses[s] {
			return s
		}
	}
	return Reached
}

// inbound reports whether a host was asked about a connection that came to it, by its own word.
func inbound(a *account) bool {
	c := a.Report.Connection
	return c != nil && c.Direction == host.Inbound
}
