package chain

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// neighbours are two hosts whose reports agree: b was reached from a, and asked it.
func neighbours() (a, b *report.Redeemed) {
	one := redeemed("sa", "a", aToB, bIn)
	two := redeemed("sb", "b", bToC, cIn, timed(previous(aToB, bIn, "token", "sa")))
	two.Traceback[0].Request = "616 , 22 : SV_REC : 92847523456"
	for _, r := range []*report.Redeemed{&one, &two} {
		r.Report.Host.Clock = &host.Clock{Synchronised: true, Error: 0.02}
		r.Report.Host.BootID = r.Report.Host.Name
	}
	return &one, &two
}

// What neighbours say differently is said, and nothing else is.
func TestContradictions(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(a, b *report.Redeemed)
		want   []string
	}{
		"none": {func(_, _ *report.Redeemed) {}, nil},
		"another port": {func(a, _ *report.Redeemed) { a.Report.Request.Local = netip.MustParseAddrPort("192.0.2.1:617") },
			[]string{"address: a was asked about 192.0.2.1:616 -> 192.0.2.2:22, says b; its token is about 192.0.2.1:617 -> 192.0.2.2:22"}},
		"another host's connection": {func(a, _ *report.Redeemed) { a.Report.Request.Local = netip.MustParseAddrPort("192.0.2.9:616") },
			[]string{"address: a was asked about 192.0.2.1:616 -> 192.0.2.2:22, says b; its token is about 192.0.2.9:616 -> 192.0.2.2:22"}},
		"behind NAT": {func(a, _ *report.Redeemed) {
			a.Report.Request.Local = netip.MustParseAddrPort("10.1.2.3:616")
		}, nil},
		"mapped": {func(a, b *report.Redeemed) {
			b.Traceback[0].Previous.Remote = netip.MustParseAddrPort("[::ffff:192.0.2.1]:616")
		}, nil},
		"another asker": {func(a, _ *report.Redeemed) { a.Report.Request.Requester = netip.MustParseAddr("198.51.100.1") },
			[]string{"request: a says that 198.51.100.1 asked it; b asked from 192.0.2.2"}},
		"another type": {func(a, _ *report.Redeemed) { a.Report.Request.Type = "SV" },
			[]string{"request: a was asked SV_REC, says b; a says SV"}},
		"another session": {func(a, _ *report.Redeemed) { a.Report.Request.SID = "7" },
			[]string{"request: a was asked in session 92847523456, says b; a says 7"}},
		"both opened": {func(_, b *report.Redeemed) { b.Report.Previous[0].Direction = host.Outbound },
			[]string{"direction: a says that it opened the connection, and so does b"}},
		"neither opened": {func(a, _ *report.Redeemed) { a.Report.Connection.Direction = host.Inbound },
			[]string{"direction: a says that b opened the connection, and b that a did"}},
		"direction by a listener": {func(a, _ *report.Redeemed) {
			a.Report.Connection.Direction, a.Report.Connection.DirectionSource = host.Inbound, host.FromListener
		}, nil},
		"direction of a candidate by a listener": {func(a, b *report.Redeemed) {
			a.Report.Connection.Direction = host.Inbound
			for i := range b.Report.Processes {
				for j := range b.Report.Processes[i].Descriptors {
					b.Report.Processes[i].Descriptors[j].DirectionSource = host.FromListener
				}
			}
		}, nil},
		"direction unknown": {func(a, _ *report.Redeemed) { a.Report.Connection.Direction = host.UnknownDirection }, nil},
		"clock within its error": {func(a, _ *report.Redeemed) {
			a.Report.Request.Time = a.Report.Request.Time.Add(200 * time.Millisecond)
			a.Report.Host.Clock.Error = 0.2
		}, nil},
		"clock beyond its error": {func(a, _ *report.Redeemed) { a.Report.Request.Time = a.Report.Request.Time.Add(-time.Minute) },
			[]string{"time: a says that it was asked at 2001-04-01 11:59:00.123, b asked from 2001-04-01 12:00:00.000 to 2001-04-01 12:00:00.300: 1m0s between two clocks that are both said to be right"}},
		"clock not synchronised": {func(a, _ *report.Redeemed) {
			a.Report.Request.Time = a.Report.Request.Time.Add(-time.Minute)
			a.Report.Host.Clock.Synchronised = false
		}, nil},
		"clock not known": {func(a, b *report.Redeemed) {
			a.Report.Request.Time = a.Report.Request.Time.Add(-time.Minute)
			b.Report.Host.Clock = nil
		}, nil},
		"bytes still on their way": {func(a, b *report.Redeemed) {
			a.Report.Connection.Bytes, b.Report.Previous[0].Bytes = host.Bytes{Sent: 1000, Acknowledged: 900, Received: 500}, host.Bytes{Sent: 600, Acknowledged: 502, Received: 1002}
		}, nil},
		"bytes never sent": {func(a, b *report.Redeemed) {
			a.Report.Connection.Bytes, b.Report.Previous[0].Bytes = host.Bytes{Sent: 1000, Received: 500}, host.Bytes{Received: 1003}
		}, []string{"bytes: a says that it had sent 1000 octets, of which b had received 1003 before"}},
		"bytes never received": {func(a, b *report.Redeemed) {
			a.Report.Connection.Bytes, b.Report.Previous[0].Bytes = host.Bytes{Sent: 1000, Received: 500}, host.Bytes{Acknowledged: 503}
		}, []string{"bytes: a says that it had received 500 octets, of which b had known 503 to arrive before"}},
		"bytes of one end alone": {func(a, b *report.Redeemed) {
			a.Report.Connection.Bytes = host.Bytes{}
			b.Report.Previous[0].Bytes = host.Bytes{Received: 1003}
		}, nil},
		"opened before": {func(a, _ *report.Redeemed) { a.Report.Connection.Opened = a.Report.Request.Time.Add(-time.Hour) }, nil},
		"opened after": {func(a, _ *report.Redeemed) { a.Report.Connection.Opened = a.Report.Request.Time.Add(time.Hour) },
			[]string{"time: a says that the connection was opened at 2001-04-01 13:00:00.123, after b had asked about it"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := neighbours()
			tt.change(a, b)
			c := Build(Of(*a, *b))
			var got []string
			for _, x := range c.Contradictions {
				got = append(got, x.Kind+": "+x.Text)
				if x.Connection == 0 || len(x.Hosts) != 2 || !strings.Contains(Text(c), "(contradiction ") {
					t.Errorf("%+v", x)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if len(c.Paths) != 1 || !strings.HasPrefix(c.pathText(c.Paths[0]), "a (") {
				t.Errorf("the path is gone: %+v", c.Paths)
			}
		})
	}
}

// Two copies of one token's records: the later has more answers, and one that says otherwise is a forgery.
func TestCopies(t *testing.T) {
	a, b := neighbours()
	early := *b
	early.Traceback = append(early.Traceback[:0:0], early.Traceback...)
	early.Traceback[0].Answered, early.Traceback[0].Kind, early.Traceback[0].Token = time.Time{}, "", ""
	for _, in := range [][]report.Redeemed{{*a, *b, early}, {early, *b, *a}} {
		if c := Build(Of(in...)); len(c.Contradictions) > 0 || len(c.Hosts) != 3 || c.Hosts[0].Status != Reported {
			t.Errorf("%+v", c.Contradictions)
		}
	}
	forged := *b
	forged.Traceback = append(forged.Traceback[:0:0], forged.Traceback...)
	forged.Traceback[0].Token = "sx"
	c := Build(Of(*b, forged, *a))
	if len(c.Contradictions) != 1 || c.Contradictions[0].Kind != AboutRecord {
		t.Errorf("%+v", c.Contradictions)
	}
}

// An address of a private network is that of as many hosts as there are who know it; a public one is one host's.
func TestAddresses(t *testing.T) {
	for addr, want := range map[string]int{"10.0.0.1": 6, "192.168.0.9": 6, "100.64.0.1": 6, "fd00::1": 6, "fe80::1": 6, "127.0.0.1": 6, "198.51.100.9": 5, "2001:db8::1": 5} {
		from := netip.AddrPortFrom(netip.MustParseAddr(addr), 7).String()
		one := redeemed("s1", "one", "192.0.2.1:5", "192.0.2.11:6", previous(from, "192.0.2.1:22", "none", "x"))
		two := redeemed("s2", "two", "192.0.2.2:5", "192.0.2.12:6", previous(from, "192.0.2.2:22", "none", "x"))
		if c := Build(Of(one, two)); len(c.Hosts) != want {
			t.Errorf("%s: %d hosts, want %d", addr, len(c.Hosts), want)
		}
	}
	// Two hosts with reports at one public address.
	one, two := redeemed("s1", "one", "192.0.2.1:5", "192.0.2.11:6"), redeemed("s2", "two", "192.0.2.1:7", "192.0.2.12:6")
	c := Build(Of(one, two))
	if len(c.Hosts) != 4 || len(c.Contradictions) != 1 || c.Contradictions[0].Kind != AboutName || c.Contradictions[0].Text != "two hosts answer at 192.0.2.1: one and two" {
		t.Errorf("%d hosts, %+v", len(c.Hosts), c.Contradictions)
	}
	// One host, asked at two of its addresses; and another one that took its name.
	for _, boot := range []string{"x", "y"} {
		two := redeemed("s2", "one", "192.0.2.2:7", "192.0.2.12:6")
		for r, id := range map[*report.Redeemed]string{&one: "x", &two: boot} {
			r.Report.Host.BootID = id
			r.Report.Host.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
		}
		if c := Build(Of(one, two)); len(c.Hosts) != map[string]int{"x": 3, "y": 4}[boot] {
			t.Errorf("%s: %d hosts", boot, len(c.Hosts))
		}
	}
	// Nobody's word joins what comes to a host without a report and what leads away from it.
	a, b := redeemed("sa", "a", aToB, bIn), redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "none", "x"))
	c = Build(Of(a, b))
	if i := c.find("192.0.2.2"); !c.Hosts[i].Unjoined || len(c.Paths) != 2 || c.Hosts[i].Status != Missing {
		t.Errorf("%+v, %+v", c.Hosts[i], c.Paths)
	}
	// It is drawn as one without a report, not as one that was reached.
	if svg := SVG(c); strings.Count(svg, `class="card missing"`) != 1 || strings.Count(svg, `class="card reached"`) != 1 {
		t.Error(svg)
	}
}

func (c *Chain) find(addr string) int {
	for i, h := range c.Hosts {
		if h.address() == addr {
			return i
		}
	}
	return -1
}

// A host may answer with a token that it got of an innocent one, for asking about a connection of its own.
func TestTokenOfAnotherHost(t *testing.T) {
	for name, change := range map[string]func(r *report.Redeemed){
		"another session": func(r *report.Redeemed) { r.Report.Request.SID = "7" },
		"another type":    func(r *report.Redeemed) { r.Report.Request.Type, r.Report.Request.SID = "SV", "" },
		"another port":    func(r *report.Redeemed) { r.Report.Request.Local = netip.MustParseAddrPort("192.0.2.9:4711") },
		"other end":       func(r *report.Redeemed) { r.Report.Request.Remote = netip.MustParseAddrPort("192.0.2.1:23") },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := neighbours()
			a.Report.Request.Local = netip.MustParseAddrPort("192.0.2.9:616")
			change(a)
			c := Build(Of(*a, *b))
			text := Text(c)
			if !strings.Contains(text, "\n192.0.2.1 -> b (192.0.2.2) -> ") && !strings.HasPrefix(text, "192.0.2.1 -> b (192.0.2.2) -> ") {
				t.Errorf("the path is another:\n%s", text)
			}
			for _, p := range c.Paths {
				if line := c.pathText(p); strings.Contains(line, "a (") && strings.Contains(line, "192.0.2.3") {
					t.Errorf("an innocent host is on the path %q", line)
				}
			}
			if len(c.Contradictions) != 1 || !strings.Contains(c.Contradictions[0].Text, "a is not put on the path") {
				t.Errorf("contradictions are %+v", c.Contradictions)
			}
		})
	}
}

// The machine behind a gateway, redeemed by somebody who asked it himself, is joined by the connection's own ends.
func TestBehindNAT(t *testing.T) {
	behind := redeemed("sa", "laptop", "10.0.0.5:616", cIn)
	behind.Report.Request.Requester = netip.MustParseAddr("10.0.0.1")
	gw := redeemed("sg", "gateway", "192.0.2.1:40001", cIn)
	gw.Report.Connection, gw.Report.Processes = nil, nil
	gw.Report.Previous = []trace.Previous{{Remote: netip.MustParseAddrPort("10.0.0.5:616"), Local: netip.MustParseAddrPort(cIn), Direction: host.Inbound,
		Reasons: []string{trace.ReasonInbound, trace.ReasonNAT}, Corroborated: true}}
	c3 := redeemed("sc", "c", cToD, dIn, previous("192.0.2.1:40001", cIn, "token", "sg"))
	c := Build(Of(c3, behind, gw))
	if len(c.Paths) != 1 || c.pathText(c.Paths[0]) != "laptop (10.0.0.5) -> gateway (192.0.2.1) -> c (192.0.2.3) -> 192.0.2.4" || !c.Hosts[1].NAT || c.Hosts[2].NAT || len(c.Contradictions) > 0 {
		t.Errorf("%s\n%+v", Text(c), c.Contradictions)
	}
	// Nobody asked it: the way breaks off at the gateway, and it is said whom to ask.
	c = Build(Of(c3, gw))
	if text := Text(c); !strings.HasPrefix(text, "gateway (192.0.2.1) -> c") || !strings.Contains(text, "not asked 10.0.0.5:616") ||
		!strings.Contains(text, "stopctl request -type SV_REC -for 192.0.2.3 10.0.0.5 616 22") || c.Hosts[len(c.Hosts)-1].Status != NotAsked {
		t.Error(text)
	}
}

// A gateway has asked the machine behind it on behalf of the other end, from an address that is not that one's: that contradicts nobody. It
// says itself who opened the connection, and what was sent to another host it was asked about that one's ends.
func TestGateway(t *testing.T) {
	const inside, gateway = "198.51.100.5:616", "192.0.2.1:40001"
	gw := redeemed("sg", "gateway", gateway, cIn, previous(inside, cIn, "token", "sa"))
	gw.Report.Connection, gw.Report.Processes = nil, nil
	gw.Report.Previous[0].Reasons = []string{trace.ReasonInbound, trace.ReasonNAT}
	gw.Report.Forwarded = &host.Forwarded{Direction: host.Outbound,
		Original:   host.Ends{Local: netip.MustParseAddrPort(inside), Remote: netip.MustParseAddrPort(cIn)},
		Translated: host.Ends{Local: netip.MustParseAddrPort(gateway), Remote: netip.MustParseAddrPort(cIn)}}
	gw.Traceback[0].Request = "616 , 22 : SV_REC : 92847523456 : 192.0.2.3"
	machine := redeemed("sa", "machine", inside, cIn)
	machine.Report.Request.Requester, machine.Report.Request.OnBehalf = netip.MustParseAddr("198.51.100.1"), true
	c3 := redeemed("sc", "c", cToD, dIn, previous(gateway, cIn, "token", "sg"))
	c3.Traceback[0].Request = "40001 , 22 : SV_REC : 92847523456"
	for _, sentTo := range []bool{false, true} {
		if sentTo {
			gw.Report.Request.Local = netip.MustParseAddrPort("198.51.100.1:40001")
		}
		c := Build(Of(c3, gw, machine))
		text := Text(c)
		if len(c.Paths) != 1 || !strings.HasPrefix(text, "machine (198.51.100.5) -> gateway (") || len(c.Contradictions) > 0 || !c.Hosts[1].NAT {
			t.Errorf("%s\n%+v", text, c.Contradictions)
		}
		for _, k := range c.Connections {
			if k.OpenedBy != "from" || k.OwnSource != "" {
				t.Errorf("%+v", k)
			}
		}
	}
	// Another asker that was not on behalf is one too many.
	gw.Traceback[0].Request = "616 , 22 : SV_REC : 92847523456"
	if c := Build(Of(c3, gw, machine)); len(c.Contradictions) != 1 || c.Contradictions[0].Kind != AboutRequest {
		t.Errorf("%+v", c.Contradictions)
	}
}

// The token does not cover trace-back records: what somebody wrote into them later accuses nobody.
func TestRecordsThatTheReportDoesNotName(t *testing.T) {
	genuine := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "missing", "no answer"))
	more, other := genuine, genuine
	forged := previous("203.0.113.66:5555", bIn, "missing", "no answer")
	more.Traceback = append(slices.Clone(genuine.Traceback), forged)
	other.Traceback = []stop.Traceback{forged}
	for _, rs := range [][]report.Redeemed{{more}, {other}, {genuine, more}, {other, genuine}, {more, more}} {
		c := Build(Of(rs...))
		if slices.ContainsFunc(c.Hosts, func(h Host) bool { return slices.Contains(h.Addresses, forged.Previous.Remote.Addr()) }) {
			t.Errorf("a host that no report names is in\n%s", Text(c))
		}
		if !slices.ContainsFunc(c.Contradictions, func(x Contradiction) bool {
			return x.Kind == AboutRecord && strings.Contains(x.Text, "does not name") && len(x.Hosts) == 1
		}) {
			t.Errorf("nobody is told of it: %v", c.Contradictions)
		}
	}
	if len(more.Traceback) != 2 || len(Build(Of(genuine)).Contradictions) != 0 {
		t.Error("what is genuine contradicts itself, or the caller's records were changed")
	}
}

// Of too many hosts to be candidates one may have been asked, since watching told: that is drawn where the report has his connection.
func TestRecordOfOneOfTooMany(t *testing.T) {
	a := redeemed("sa", "a", aToB, bIn)
	connection := host.Descriptor{Kind: host.TCP, Local: netip.MustParseAddrPort(bIn), Remote: netip.MustParseAddrPort(aToB), Direction: host.Inbound}
	for name, tt := range map[string]struct {
		change func(*report.Redeemed)
		drawn  bool
	}{
		"he is told":                  {func(*report.Redeemed) {}, true},
		"not for certain":             {func(r *report.Redeemed) { r.Traceback[0].Flow.Grade = stop.FlowSupported }, false},
		"nobody was watched":          {func(r *report.Redeemed) { r.Traceback[0].Flow = nil }, false},
		"another reason":              {func(r *report.Redeemed) { r.Traceback[0].SelectedBy = "inbound" }, false},
		"it was opened by this host":  {func(r *report.Redeemed) { r.Report.Processes[0].Descriptors[0].Direction = host.Outbound }, false},
		"another's connection":        {func(r *report.Redeemed) { r.Report.Connection.Owners[0]++ }, false},
		"the report does not have it": {func(r *report.Redeemed) { r.Report.Processes[0].Descriptors = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "sa"))
			b.Report.Previous, b.Traceback[0].SelectedBy, b.Traceback[0].Flow = nil, "flow", &stop.Flow{Grade: stop.FlowCertain}
			b.Report.Processes[0].Descriptors = []host.Descriptor{connection}
			tt.change(&b)
			c := Build(Of(a, b))
			if drawn := strings.HasPrefix(Text(c), "a (192.0.2.1) -> b (192.0.2.2) -> 192.0.2.3\n"); drawn != tt.drawn || drawn != (len(c.Contradictions) == 0) {
				t.Errorf("%v\n%s", c.Contradictions, Text(c))
			}
		})
	}
}
