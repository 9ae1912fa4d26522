package chain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A dealer makes reports out of octets: of few hosts, so that they meet, and of names and answers that an intruder
// would send.
type dealer struct{ b []byte }

func (d *dealer) n(below int) int {
	if len(d.b) == 0 {
		return 0
	}
	n := int(d.b[0]) % below
	d.b = d.b[1:]
	return n
}

func pick[T any](d *dealer, from ...T) T { return from[d.n(len(from))] }

func (d *dealer) text() string {
	return pick(d, "", "a", "b", "c", "alice", "\x1b[2J", "<script>alert(1)</script>", "</text>", "&amp;\"'", "=cmd|' /C calc'!A0", "@SUM(1)", "-1+2",
		"\u202eevil", "\xff\xfe", "\\N\\G", "]]>", "url(http://x)", "\n1. forged", strings.Repeat("long ", 99), strings.Repeat("e\u0301\u0301\u0301\u0301", 40), "主机", "\ufffe", "+1", "\t", "＝1")
}

func (d *dealer) addr() netip.Addr {
	s := pick(d, "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "10.0.0.1", "10.0.0.2", "2001:db8::1", "fe80::1%eth0", "fe80::1%\x1b\"<", "::ffff:192.0.2.1", "127.0.0.1", "")
	a, _ := netip.ParseAddr(s)
	return a
}

func (d *dealer) end() netip.AddrPort {
	return netip.AddrPortFrom(d.addr(), pick[uint16](d, 22, 1000, 0, 65535))
}

func (d *dealer) time() time.Time {
	return pick(d, time.Time{}, at, at.Add(time.Second), at.Add(-time.Hour), at.AddDate(-1990, 0, 0), at.AddDate(7998, 0, 0))
}

func (d *dealer) bytes() host.Bytes {
	return host.Bytes{Sent: pick[uint64](d, 0, 1, 1<<40, 1<<64-1), Received: pick[uint64](d, 0, 7, 1<<64-1), Acknowledged: pick[uint64](d, 0, 1, 1<<64-1)}
}

var at = time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)

func (d *dealer) token() string { return "s" + pick(d, "1", "2", "3", "4", "5", "6", "<", "") }

func (d *dealer) report() report.Redeemed {
	r := report.Redeemed{Token: d.token()}
	p := &r.Report
	p.Kind = pick(d, report.KindSV, report.KindSV, report.KindSV, report.KindID, report.KindNone, report.KindDuplicate, "\x1b")
	p.SameAs, p.Reason = d.token(), d.text()
	p.Host = host.Facts{Name: d.text(), OS: d.text(), BootID: d.text(), Addresses: []netip.Addr{d.addr(), d.addr()}}
	if d.n(2) == 0 {
		p.Host.Clock = &host.Clock{Synchronised: d.n(2) == 0, Error: pick(d, 0, 0.5, -1, 1e300)}
	}
	p.Request = report.Request{Time: d.time(), Type: pick(d, "SV_REC", "SV", d.text()), SID: pick(d, "", "7", d.text()), Local: d.end(), Remote: d.end(), Requester: d.addr()}
	if d.n(4) > 0 {
		p.Connection = &report.Connection{Direction: pick(d, host.Outbound, host.Outbound, host.Inbound, host.UnknownDirection, "?"), User: d.text(), Opened: d.time(), Owners: []int{1}, Bytes: d.bytes()}
	}
	for range d.n(3) {
		p.Processes = append(p.Processes, trace.Process{Via: trace.Via{By: trace.ByOwner}, Process: host.Process{PID: d.n(9), Name: d.text(), Args: []string{d.text()}}})
	}
	for range d.n(4) {
		t := stop.Traceback{Previous: stop.Ends{Remote: d.end(), Local: d.end()}, SelectedBy: d.text(), Asked: d.n(4) > 0, Request: d.text(), Sent: d.time(), Answered: d.time(),
			Kind: pick(d, "token", "token", "token", "legacy", "error", "none", "", d.text()), Reply: d.text(), Error: d.text()}
		if t.Kind == "token" {
			t.Token = d.token()
		}
		r.Traceback = append(r.Traceback, t)
		if d.n(3) > 0 {
			p.Previous = append(p.Previous, trace.Previous{Remote: t.Previous.Remote, Local: t.Previous.Local, Corroborated: d.n(3) > 0,
				Direction: pick(d, host.Inbound, host.Inbound, host.Outbound, "?"), Reasons: []string{pick(d, "inbound", "nat", d.text())}, Bytes: d.bytes()})
		}
	}
	for range d.n(3) {
		p.Gaps = append(p.Gaps, host.Gap{PID: d.n(3), What: pick(d, "owners", "trace", d.text()), Why: pick(d, "bound: "+d.text(), d.text())})
	}
	return r
}

// FuzzBuild makes chains of reports that contradict, repeat and imitate each other. Whoever wrote them: the chain is
// the same in whichever order they are given, refers only to what it has, loses no report, and every form of it is
// well-formed.
func FuzzBuild(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		b := make([]byte, 40*(i%12+1))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &dealer{b}
		var rs []report.Redeemed
		for len(d.b) > 0 && len(rs) < 12 {
			rs = append(rs, d.report())
		}
		c := Build(Of(rs...))
		checkIDs(t, c)
		all := checkForms(t, c)
		held := map[string]bool{}
		for _, h := range c.Hosts {
			for _, a := range h.Reports {
				held[a.Token] = true
				for _, dup := range a.Duplicates {
					held[dup] = true
				}
			}
		}
		for _, r := range rs {
			if !held[clean(r.Token)] {
				t.Errorf("%q was dropped", r.Token)
			}
		}
		slices.Reverse(rs)
		same := checkForms(t, Build(Of(rs...)))
		rand.New(rand.NewPCG(uint64(len(b)), 0)).Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
		for form, text := range checkForms(t, Build(Of(rs...))) {
			if text != all[form] || text != same[form] {
				t.Errorf("%s depends on the order of the reports", form)
			}
		}
	})
}

// checkIDs checks that ids are those of hosts and connections that there are, and that paths hold together.
func checkIDs(t *testing.T, c *Chain) {
	t.Helper()
	host := func(id int) bool { return id >= 1 && id <= len(c.Hosts) && c.Hosts[id-1].ID == id }
	link := func(id int) bool { return id >= 1 && id <= len(c.Connections) && c.Connections[id-1].ID == id }
	for i, h := range c.Hosts {
		if h.ID != i+1 {
			t.Errorf("host %d has id %d", i+1, h.ID)
		}
	}
	for i, k := range c.Connections {
		if k.ID != i+1 || !host(k.From) || !host(k.To) {
			t.Errorf("connection %d: %+v", i+1, k)
		}
	}
	for _, j := range c.Joins {
		if !host(j.Host) || !link(j.In) || !link(j.Out) || c.connection(j.In).To != j.Host || c.connection(j.Out).From != j.Host {
			t.Errorf("join %+v", j)
		}
	}
	for _, p := range c.Paths {
		if len(p.Hosts) != len(p.Connections)+1 {
			t.Errorf("path %+v", p)
			continue
		}
		for i, id := range p.Connections {
			if !link(id) || c.connection(id).From != p.Hosts[i] || c.connection(id).To != p.Hosts[i+1] {
				t.Errorf("path %+v", p)
			}
		}
	}
	for _, s := range c.Next {
		if !host(s.Host) {
			t.Errorf("step %+v", s)
		}
	}
	for _, x := range c.Contradictions {
		if slices.ContainsFunc(x.Hosts, func(id int) bool { return !host(id) }) || x.Connection != 0 && !link(x.Connection) {
			t.Errorf("contradiction %+v", x)
		}
	}
}

// Whatever one report holds, what is drawn of it is bounded, and what is left out is counted.
func TestBounds(t *testing.T) {
	const many = 40_000
	liar := redeemed("s1", "liar", bToC, cIn)
	for i := range many {
		e := stop.Ends{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), uint16(i>>16)+1), Local: netip.MustParseAddrPort(bIn)}
		liar.Report.Previous = append(liar.Report.Previous, trace.Previous{Remote: e.Remote, Local: e.Local, Direction: host.Inbound, Corroborated: true, Reasons: []string{"inbound"}})
		liar.Traceback = append(liar.Traceback, stop.Traceback{Previous: e, Asked: i%2 == 0, Kind: "token", Token: fmt.Sprintf("sx%d", i)})
		liar.Report.Gaps = append(liar.Report.Gaps, host.Gap{What: "owners", Why: "x"})
		liar.Report.Processes = append(liar.Report.Processes, trace.Process{Via: trace.Via{By: trace.ByOwner}})
	}
	c := Build(Of(liar))
	checkIDs(t, c)
	got := map[string]int{}
	for _, o := range c.Omitted {
		got[o.What] = o.Count
	}
	if want := map[string]int{"questions": many/2 - maxAsked, "candidates": many/2 - maxNotAsked}; got["questions"] != want["questions"] || got["candidates"] != want["candidates"] {
		t.Errorf("left out: %v, want %v", got, want)
	}
	if len(c.Hosts) > 2+maxAsked+maxNotAsked || len(c.Hosts[0].Reports) > 1 || len(c.Paths) > maxPaths {
		t.Errorf("%d hosts, %d paths", len(c.Hosts), len(c.Paths))
	}
	for form, text := range checkForms(t, c) {
		if len(text) > 1_000_000 {
			t.Errorf("%s has %d octets", form, len(text))
		}
	}
	// More reports than there may be, each of which names all others.
	var crowd []report.Redeemed
	for i := range maxReports + 10 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 7)
		var asked []stop.Traceback
		for j := range 3 {
			asked = append(asked, previous(from.String(), from.String(), "token", fmt.Sprintf("s%d", (i*7+j*11)%maxReports)))
		}
		crowd = append(crowd, redeemed(fmt.Sprintf("s%d", i), "one", from.String(), cIn, asked...))
	}
	c = Build(Of(crowd...))
	checkIDs(t, c)
	checkForms(t, c)
	if !slices.Contains(c.Omitted, Omission{"reports", 10}) || len(c.Connections) > maxConnections {
		t.Errorf("%d connections, left out: %v", len(c.Connections), c.Omitted)
	}
}
