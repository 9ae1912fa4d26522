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

// Build joins redeemed reports. They are told apart by token; of two copies of one, that with more answers counts.
func Build(rs []report.Redeemed) *Chain {
	b := &builder{
		byToken: map[string]*account{}, at: map[netip.Addr]*node{}, known: map[string]*node{},
		byKey: map[linkKey]*link{}, omitted: map[string]int{},
	}
	b.accounts(rs)
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
	*report.Redeemed
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
func (b *builder) accounts(rs []report.Redeemed) {
	copies := map[string][]*report.Redeemed{}
	for _, r := range rs {
		r.Traceback = b.borneOutBy(r)
		copies[r.Token] = append(copies[r.Token], &r)
	}
	tokens := slices.Sorted(maps.Keys(copies))
	if n := len(tokens) - maxReports; n > 0 {
		b.omitted["reports"], tokens = n, tokens[:maxReports]
	}
	for _, t := range tokens {
		a := &account{Redeemed: b.fullest(copies[t])}
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

// borneOutBy gives those of a token's trace-back records that are about candidates of its report. A host asks nobody else, and
// the token is the hash of the report alone: whoever has had the records in his hands since can have written others.
func (b *builder) borneOutBy(r report.Redeemed) []stop.Traceback {
	candidates := map[stop.Ends]bool{}
	for _, p := range r.Report.Previous {
		candidates[stop.Ends{Remote: unmap(p.Remote), Local: unmap(p.Local)}] = true
	}
	var borne []stop.Traceback
	for _, t := range r.Traceback {
		if e := (stop.Ends{Remote: unmap(t.Previous.Remote), Local: unmap(t.Previous.Local)}); candidates[e] {
			borne = append(borne, t)
		}
	}
	if n := len(r.Traceback) - len(borne); n > 0 {
		c := contradiction{kind: AboutRecord, token: r.Token,
			text: fmt.Sprintf("%d of the trace-back records of the token %s are about connections that its report does not name: they are left out", n, clean(r.Token))}
		if !slices.ContainsFunc(b.told, func(d contradiction) bool { return d.token == c.token && d.text == c.text }) {
			b.told = append(b.told, c)
		}
	}
	return borne
}

// fullest chooses the copy of a token's records that has the most answers: one that was redeemed early has
// fewer. Where copies disagree, that is noted.
func (b *builder) fullest(copies []*report.Redeemed) *report.Redeemed {
	if len(copies) == 1 {
		return copies[0]
	}
	text := func(r *report.Redeemed) string {
		return string(report.EncodeTraceback(r.Traceback)) + string(report.Encode(r.Report))
	}
	answered := func(r *report.Redeemed) (n int) {
		for _, t := range r.Traceback {
			if !t.Asked || !t.Answered.IsZero() {
				n++
			}
		}
		return n
	}
	copies = slices.SortedFunc(slices.Values(copies), func(x, y *report.Redeemed) int {
		return cmp.Or(cmp.Compare(answered(y), answered(x)), strings.Compare(text(x), text(y)))
	})
	full := copies[0]
	for _, r := range copies[1:] {
		if !extends(full, r) {
			b.told = append(b.told, contradiction{kind: AboutRecord, token: full.Token,
				text: "two copies of what its token " + clean(full.Token) + " stands for differ: one of them was altered"})
			break
		}
	}
	return full
}

// extends reports whether a copy has what an earlier one has, and answers beyond.
func extends(full, early *report.Redeemed) bool {
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
