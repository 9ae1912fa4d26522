package chain

import (
	"fmt"
	"net/netip"
	"slices"

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
	recorded   bool // a report that is no plain file has its token
}

// A naming is another host's word that this report is that of a previous host, and the connection as that host has it.
type naming struct {
	by   *account
	ends stop.Ends
}

// anybodys reports whether anybody can have made up a report: it is plain, and no bundle has its token.
func (a *account) anybodys() bool {
	return a.Standing == Plain && !a.recorded
}

// A node is a host in the making.
type node struct {
	key       string // tells nodes apart, and orders them
	accounts  []*account
	addresses map[netip.Addr]bool
	statuses  map[Status]bool
	index     int
}

// original is the report that a duplicate repeats, where it is at hand and of the same host and connection: else whoever made the
// duplicate speaks for another. Liars may repeat each other in a ring.
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
		if !repeats(at, next) {
			b.ofRecords(at.Token, "%s says that it repeats %s, which is a report of another host or connection: that is not followed", clean(at.Token), clean(next.Token))
			return at
		}
		at = next
	}
	return a
}

// repeats reports whether a duplicate can be one of a report.
func repeats(a, of *account) bool {
	x, y := &a.Report, &of.Report
	return x.Host.Name == y.Host.Name && sameHost(a, of) &&
		unmap(x.Request.Local) == unmap(y.Request.Local) && unmap(x.Request.Remote) == unmap(y.Request.Remote)
}

// reporters makes the hosts that have reports. Two reports are of one host where it has the same name, and
// either was asked at the same address or says that it has both, of one boot. A name alone is anybody's, and so is an
// address of a private network. What anybody can have written is never taken for the word of a host whose bundle is at hand.
func (b *builder) reporters() {
	type name struct {
		name     string
		anybodys bool
	}
	byName := map[name][]*account{}
	for _, a := range b.asked {
		k := name{a.Report.Host.Name, a.anybodys()}
		byName[k] = append(byName[k], a)
	}
	for _, a := range b.asked {
		for _, other := range byName[name{a.Report.Host.Name, a.anybodys()}] {
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
	for _, n := range b.nodes {
		b.logs(n)
	}
	for _, anybodys := range []bool{false, true} {
		for _, a := range b.asked {
			if a.anybodys() == anybodys && public(local(a)) && a.askedThere() {
				b.answersAt(a)
			}
		}
	}
}

// logs notes where a host's reports are in several logs: a host has one.
func (b *builder) logs(n *node) {
	var logs []string
	for _, a := range n.accounts {
		if a.Log != "" && !slices.Contains(logs, clean(a.Log)) {
			logs = append(logs, clean(a.Log))
		}
	}
	if len(logs) > 1 {
		b.told = append(b.told, contradiction{kind: AboutName, nodes: []*node{n},
			text: fmt.Sprintf("reports of %s are in %d logs: %s", named(n), len(logs), several(logs))})
	}
}

// answersAt notes that a host answers at a public address. Those for which more speaks come first.
func (b *builder) answersAt(a *account) {
	addr := local(a)
	other, taken := b.at[addr]
	if !taken {
		b.at[addr] = a.node
		return
	}
	if other == nil || other == a.node {
		return
	}
	text := fmt.Sprintf("two hosts answer at %s: %s and %s", addr, named(other), named(a.node))
	if a.anybodys() && !other.accounts[0].anybodys() {
		text = fmt.Sprintf("%s, of which nobody but its maker says so, is said to be of a host at %s, where %s answers: it is kept apart", clean(a.Token), addr, named(other))
	} else {
		b.at[addr] = nil
	}
	b.told = append(b.told, contradiction{kind: AboutName, nodes: []*node{other, a.node}, text: text})
}

// askedThere reports whether the address that a report was asked at is the one at which others asked, where any did.
func (a *account) askedThere() bool {
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
