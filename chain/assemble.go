package chain

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// chain writes down what was found, with ids in the order of the picture.
func (b *builder) chain() *Chain {
	c := &Chain{Version: Version, Paths: []Path{}, Hosts: []Host{}, Connections: []Connection{}, Joins: []Join{},
		Contradictions: []Contradiction{}, Next: []Step{}, Omitted: []Omission{}}
	hosts := b.number(c)
	links := b.addConnections(c, hosts)
	for _, n := range slices.SortedFunc(maps.Keys(hosts), func(x, y *node) int { return cmp.Compare(hosts[x], hosts[y]) }) {
		c.Hosts = append(c.Hosts, hostOf(n, hosts[n], links))
	}
	for _, j := range b.joins {
		q := j.in.questions[j.question]
		c.Joins = append(c.Joins, Join{Host: hosts[j.at.node], In: links[j.in], Out: links[j.out], Token: clean(j.at.Token),
			Reasons: cleanAll(q.reasons(), maxGaps), Corroborated: q.corroborated()})
	}
	slices.SortStableFunc(c.Joins, func(x, y Join) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.In, y.In), cmp.Compare(x.Out, y.Out), cmp.Compare(x.Token, y.Token))
	})
	b.addContradictions(c, hosts, links)
	c.index()
	c.unjoined()
	for _, what := range slices.Sorted(maps.Keys(b.omitted)) {
		c.Omitted = append(c.Omitted, Omission{what, b.omitted[what]})
	}
	return c
}

// number gives the hosts their ids. Those that were not asked come last: they are on no path.
func (b *builder) number(c *Chain) map[*node]int {
	slices.SortFunc(b.nodes, func(x, y *node) int { return strings.Compare(x.key, y.key) })
	var shown, rest []int
	for i, n := range b.nodes {
		n.index = i
		switch s := n.status(); {
		case s == Claimed:
			rest = append(rest, i)
		default:
			shown = append(shown, i)
		}
	}
	g := newGraph(len(b.nodes))
	for _, l := range b.links {
		if l.from.status() != Claimed && l.to.status() != Claimed {
			g.edge(l.from.index, l.to.index)
		}
	}
	parts := g.parts(shown)
	ids := map[*node]int{}
	give := func(i int) { ids[b.nodes[i]] = len(ids) + 1 }
	for _, aside := range []bool{false, true} {
		for _, columns := range parts {
			for _, column := range columns {
				for _, i := range column {
					if (b.nodes[i].status() == NotAsked) == aside {
						give(i)
					}
				}
			}
		}
	}
	for _, i := range rest {
		give(i)
	}
	for _, columns := range parts {
		for _, column := range columns {
			for r, i := range column {
				column[r] = ids[b.nodes[i]]
			}
		}
	}
	c.parts = parts
	return ids
}

// addConnections adds the connections in the order of their hosts.
func (b *builder) addConnections(c *Chain, hosts map[*node]int) map[*link]int {
	compare := func(x, y *link) int {
		return cmp.Or(cmp.Compare(hosts[x.from], hosts[y.from]), cmp.Compare(hosts[x.to], hosts[y.to]), x.src.Compare(y.src), x.dst.Compare(y.dst))
	}
	ids := map[*link]int{}
	for i, l := range slices.SortedFunc(slices.Values(b.links), compare) {
		ids[l] = i + 1
		k := Connection{ID: i + 1, From: hosts[l.from], To: hosts[l.to], src: l.src, dst: l.dst,
			OpenedBy: l.openedBy(), Linked: l.linked, ToldBy: []string{}, Questions: []Question{}}
		if len(l.own) > 0 {
			k.ToldBy = append(k.ToldBy, "from")
		}
		if len(l.ends) > 0 || len(l.questions) > 0 {
			k.ToldBy = append(k.ToldBy, "to")
		}
		for _, q := range l.questions {
			e := q.record.Previous
			if q.answer != nil && k.OwnSource == "" && !agree(q.answer, e) {
				k.Translated = translated(q.answer, e)
				near, remote := q.answer.ends()
				k.OwnSource, k.OwnDestination = endText(near), endText(remote)
				k.src, k.dst = unmap(e.Remote), unmap(e.Local)
			}
			if q.answer != nil && k.Clock == nil {
				k.Clock = ahead(q)
			}
			k.Questions = append(k.Questions, Question{By: clean(q.by.Token), Status: q.status, Reasons: cleanAll(q.reasons(), maxGaps),
				Corroborated: q.corroborated(), Sent: known(q.record.Sent), Answered: known(q.record.Answered),
				Token: clean(q.record.Token), Detail: clean(q.detail)})
		}
		k.Source, k.Destination = endText(k.src), endText(k.dst)
		c.Connections = append(c.Connections, k)
	}
	return ids
}

// known is nil for a time that is not.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func hostOf(n *node, id int, links map[*link]int) Host {
	h := Host{ID: id, Status: n.status(), Addresses: sortedAddresses(n), Reports: []Account{}}
	if h.Addresses == nil {
		h.Addresses = []netip.Addr{}
	}
	for _, a := range n.accounts {
		if h.Name == "" {
			h.Name = clean(a.Report.Host.Name)
		}
		h.NAT = h.NAT || passesOn(&a.Report)
		if a.of == a {
			h.Reports = append(h.Reports, accountOf(a, links))
		}
	}
	return h
}

func sortedAddresses(n *node) []netip.Addr {
	return slices.SortedFunc(maps.Keys(n.addresses), netip.Addr.Compare)
}

func accountOf(a *account, links map[*link]int) Account {
	r := &a.Report
	x := Account{Token: clean(a.Token), Kind: clean(r.Kind), Asked: known(r.Request.Time), Requester: r.Request.Requester.Unmap(), Type: clean(r.Request.Type),
		System: clean(r.Host.OS), Clock: r.Host.Clock, Processes: []Process{}, Gaps: len(r.Gaps), Breaking: []Gap{},
		Reason: clean(r.Reason), SameAs: clean(r.SameAs), Duplicates: []string{}, Standing: a.Standing, Log: clean(a.Log), foreignLog: a.foreignLog(), outvouched: a.outvouched, disputed: len(a.Source.disputed) > 0, stale: a.Source.stale, redeemed: &a.Redeemed, out: links[a.out]}
	if by := a.recordedBy; by != nil {
		x.RecordedBy, x.recorder = clean(by.Token), named(by.node)
	}
	if c := r.Connection; c != nil {
		x.User, x.UID = clean(c.User), &c.UID
	}
	for _, p := range between(r) {
		if len(x.Processes) == maxProcesses {
			break
		}
		x.Processes = append(x.Processes, Process{p.PID, command(p.Process)})
	}
	for _, g := range breaking(r) {
		if x.breaking++; x.breaking <= maxGaps {
			x.Breaking = append(x.Breaking, Gap{g.PID, clean(g.What), clean(g.Why)})
		}
	}
	for _, d := range a.duplicates {
		x.Duplicates = append(x.Duplicates, clean(d.Token))
	}
	return x
}

// command is a process's arguments. Daemons that write a title over theirs pad it with blanks.
func command(p host.Process) string {
	if s := strings.TrimRight(strings.Join(p.Args, " "), " "); s != "" {
		return clean(s)
	}
	return clean(p.Name)
}

// between returns the processes that hold the asked connection or, on the way from it, one with another
// host: the rest of the report is for the one who reads it.
func between(r *report.Report) []trace.Process {
	type pair struct{ local, remote netip.AddrPort }
	previous := map[pair]bool{}
	for _, p := range r.Previous {
		previous[pair{p.Local, p.Remote}] = true
	}
	var ps []trace.Process
	for _, p := range r.Processes {
		if p.Via.By == trace.ByOwner || slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool {
			return d.Kind == host.TCP && previous[pair{d.Local, d.Remote}]
		}) {
			ps = append(ps, p)
		}
	}
	return ps
}

// breaking returns the gaps behind which a way further back may lie.
func breaking(r *report.Report) []host.Gap {
	var gaps []host.Gap
	for _, g := range r.Gaps {
		if strings.HasPrefix(g.Why, "bound: ") || g.What == "owners" || g.What == "trace" {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

func (b *builder) addContradictions(c *Chain, hosts map[*node]int, links map[*link]int) {
	for _, t := range b.told {
		x := Contradiction{Kind: t.kind, Hosts: []int{}, Connection: links[t.link], Text: t.text}
		if a := b.byToken[t.token]; a != nil {
			x.Hosts = append(x.Hosts, hosts[a.node])
		}
		for _, n := range t.nodes {
			if !slices.Contains(x.Hosts, hosts[n]) {
				x.Hosts = append(x.Hosts, hosts[n])
			}
		}
		c.Contradictions = append(c.Contradictions, x)
	}
	slices.SortStableFunc(c.Contradictions, func(x, y Contradiction) int {
		return cmp.Or(slices.Compare(x.Hosts, y.Hosts), cmp.Compare(x.Connection, y.Connection), strings.Compare(x.Kind, y.Kind), strings.Compare(x.Text, y.Text))
	})
	if n := len(c.Contradictions) - maxTold; n > 0 {
		b.omitted["contradictions"] = n
		c.Contradictions = c.Contradictions[:maxTold]
	}
	for i := range c.Contradictions {
		c.Contradictions[i].ID = i + 1
	}
}

// index finds what belongs to each host and to each connection.
func (c *Chain) index() {
	c.at, c.joinsOf, c.about = map[int][]*Connection{}, map[int][]Join{}, map[int][]Contradiction{}
	for i := range c.Connections {
		k := &c.Connections[i]
		c.at[k.From] = append(c.at[k.From], k)
		if k.To != k.From {
			c.at[k.To] = append(c.at[k.To], k)
		}
	}
	for _, j := range c.Joins {
		c.joinsOf[j.Host] = append(c.joinsOf[j.Host], j)
	}
	for _, x := range c.Contradictions {
		c.about[x.Connection] = append(c.about[x.Connection], x)
	}
}

// unjoined marks the hosts through which a path may lead from one host to another, but no report says so.
func (c *Chain) unjoined() {
	in, joined := map[int][]int{}, map[int]bool{}
	for i := range c.Connections {
		if k := &c.Connections[i]; k.asked() {
			in[k.To] = append(in[k.To], k.From)
		}
	}
	for _, j := range c.Joins {
		joined[j.Host] = true
	}
	for i := range c.Connections {
		k := &c.Connections[i]
		h := c.host(k.From)
		if k.asked() && h.Status != Reported && !joined[h.ID] && slices.ContainsFunc(in[h.ID], func(from int) bool { return from != k.To }) {
			h.Unjoined = true
		}
	}
}

// asked reports whether more than a candidate that nobody asked speaks for a connection.
func (k *Connection) asked() bool {
	return len(k.Questions) == 0 || slices.Contains(k.ToldBy, "from") || slices.ContainsFunc(k.Questions, Question.asked)
}

func (q Question) asked() bool { return q.Status != NotAsked && q.Status != Claimed }

// host returns a host by its id.
func (c *Chain) host(id int) *Host { return &c.Hosts[id-1] }

// connection returns a connection by its id.
func (c *Chain) connection(id int) *Connection { return &c.Connections[id-1] }
