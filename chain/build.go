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
	b.reporters()
	b.namings()
	b.addresses()
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
	recordedBy *account // whose records have its token, of those that not anybody can have made
	outvouched bool     // anybody can have made it, and there are others of its host for which more speaks
}

// A naming is another host's word that this report is that of a previous host, and the connection as that host has it.
type naming struct {
	by   *account
	ends stop.Ends
}

// anybodys reports whether anybody can have made up a report: nobody vouches for it, and nobody's records have its token for whom
// somebody does.
func (a *account) anybodys() bool {
	return !a.Standing.bundled() && a.recordedBy == nil
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

// repeats reports whether a duplicate can be one of a report. A host may have been asked at another of its addresses.
func repeats(a, of *account) bool {
	x, y := &a.Report, &of.Report
	if x.Host.Name != y.Host.Name || unmap(x.Request.Remote) != unmap(y.Request.Remote) || x.Request.Local.Port() != y.Request.Local.Port() {
		return false
	}
	twoBoots := x.Host.BootID != y.Host.BootID && x.Host.BootID != "" && y.Host.BootID != ""
	return local(a) == local(of) && !twoBoots || sameHost(a, of)
}

// reporters makes the hosts that have reports. Two reports are of one host where it has the same name, and
// either was asked at the same address or says that it has both, of one boot. A name alone is anybody's, and so is an
// address of a private network. A duplicate is of the host of what it repeats.
func (b *builder) reporters() {
	byName := map[string][]*account{}
	for _, a := range b.asked {
		if a.of == a {
			byName[a.Report.Host.Name] = append(byName[a.Report.Host.Name], a)
		}
	}
	for _, a := range b.asked {
		if a.of != a {
			continue
		}
		for _, other := range byName[a.Report.Host.Name] {
			if other.node != nil && sameHost(a, other) {
				a.node = other.node
				break
			}
		}
		if a.node == nil {
			a.node = b.node("report " + a.Token)
		}
		a.node.take(a)
	}
	for _, a := range b.asked {
		if a.of != a {
			a.node = a.of.node
			a.node.take(a)
		}
	}
	for _, n := range b.nodes {
		b.logs(n)
		vouched := slices.ContainsFunc(n.accounts, func(a *account) bool { return !a.anybodys() })
		for _, a := range n.accounts {
			a.outvouched = vouched && a.anybodys()
		}
	}
}

// addresses finds the public addresses at which one host answers.
func (b *builder) addresses() {
	for _, anybodys := range []bool{false, true} {
		for _, a := range b.asked {
			if a.of == a && a.anybodys() == anybodys && public(local(a)) && a.askedThere() {
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
		text = fmt.Sprintf("two hosts answer at %s: %s, and %s, of which nobody says so who is vouched for", addr, named(other), named(a.node))
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

func (n *node) take(a *account) {
	n.accounts = append(n.accounts, a)
	n.addresses[local(a)] = true
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
	if a = a.Unmap(); public(a) && b.at[a] != nil {
		return b.at[a]
	}
	if !public(a) && by.addresses[a] {
		return by
	}
	return b.unknown(by, a)
}

// unknown is a host without a report, by an address at which another knows it.
func (b *builder) unknown(by *node, a netip.Addr) *node {
	a = a.Unmap()
	key := fmt.Sprintf("at %x %s", a.As16(), a)
	if !public(a) {
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

// ends are those of the connection that a host was asked about. A gateway that answers what was sent to another host was asked at an address of
// its own, about that one's connection.
func (a *account) ends() (near, remote netip.AddrPort) {
	if f := a.Report.Forwarded; f != nil {
		return unmap(f.Translated.Local), unmap(f.Translated.Remote)
	}
	return unmap(a.Report.Request.Local), unmap(a.Report.Request.Remote)
}

// inbound reports whether a host was asked about a connection that came to it, by its own word.
func inbound(a *account) bool { return direction(&a.Report) == host.Inbound }

// direction is who opened the connection that a host was asked about, by its own word: also where it has passed it on for another.
func direction(r *report.Report) host.Direction {
	switch {
	case r.Connection != nil:
		return r.Connection.Direction
	case r.Forwarded != nil:
		return r.Forwarded.Direction
	}
	return host.UnknownDirection
}
