package chain

import (
	"flag"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

var update = flag.Bool("update", false, "write the golden files")

// redeemed is what a host's token stands for: it was asked about the connection from one end to another,
// and holds the connections in, which it may have asked about.
func redeemed(token, name, from, to string, asked ...stop.Traceback) report.Redeemed {
	l, r := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	rep := report.Report{
		Version: report.Version, Kind: report.KindSV,
		Host: host.Facts{Name: name, OS: "Linux"},
		Request: report.Request{Time: time.Date(2001, 4, 1, 12, 0, 0, 123e6, time.UTC), Type: "SV_REC", SID: "92847523456",
			Local: l, Remote: r, Requester: r.Addr()},
		Connection: &report.Connection{Protocol: host.TCP, Direction: host.Outbound, UID: 1000, User: "intruder", Owners: []int{300}},
		Processes: []trace.Process{
			{Index: 1, Via: trace.Via{By: trace.ByOwner}, Process: host.Process{PID: 300, Name: "nc", Args: []string{"nc", r.Addr().String()}}},
			{Index: 2, Via: trace.Via{By: trace.ByParent}, Process: host.Process{PID: 200, Name: "sh"}},
		},
	}
	for _, t := range asked {
		p := trace.Previous{Remote: t.Previous.Remote, Local: t.Previous.Local, PID: 100, Direction: host.Inbound,
			Reasons: []string{trace.ReasonInbound}, Corroborated: true}
		rep.Previous = append(rep.Previous, p)
		rep.Processes = append(rep.Processes, trace.Process{Index: len(rep.Processes) + 1, Via: trace.Via{By: trace.ByParent},
			Process: host.Process{PID: 100, Name: "sshd", Args: []string{"sshd: intruder@pts/0", "", "     "},
				Descriptors: []host.Descriptor{{Kind: host.TCP, Local: p.Local, Remote: p.Remote}}}})
	}
	return report.Redeemed{Token: token, Report: rep, Traceback: asked}
}

// previous is a question to the host at the other end of the connection from one end to another.
func previous(from, to, kind, answer string) stop.Traceback {
	t := stop.Traceback{Previous: stop.Ends{Remote: netip.MustParseAddrPort(from), Local: netip.MustParseAddrPort(to)},
		SelectedBy: "inbound", Asked: true, Kind: kind, Answered: time.Date(2001, 4, 1, 12, 0, 1, 0, time.UTC)}
	switch kind {
	case "token":
		t.Token = answer
	case "legacy":
		t.Reply = answer
	default:
		t.Error = answer
	}
	return t
}

const (
	aToB = "192.0.2.1:616"
	bIn  = "192.0.2.2:22"
	bToC = "192.0.2.2:968"
	cIn  = "192.0.2.3:22"
	cToD = "192.0.2.3:8526"
	dIn  = "192.0.2.4:9010"
)

func TestChains(t *testing.T) {
	a := redeemed("sa", "a", aToB, bIn)
	b := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "sa"))
	c := redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sb"))
	with := func(r report.Redeemed, change func(*report.Redeemed)) report.Redeemed { change(&r); return r }
	duplicate := with(redeemed("sdup", "b", bToC, cIn), func(r *report.Redeemed) {
		r.Report.Kind, r.Report.SameAs, r.Report.Reason = report.KindDuplicate, "sb", "duplicate"
		r.Report.Connection, r.Report.Processes = nil, nil
	})
	notAsked := stop.Traceback{Previous: stop.Ends{Remote: netip.MustParseAddrPort("198.51.100.7:5"), Local: netip.MustParseAddrPort(cIn)},
		SelectedBy: "inbound", Kind: "none", Error: "not asked: policy"}
	word := stop.Traceback{Previous: stop.Ends{Remote: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.8"), 0)},
		SelectedBy: "ssh-connection", Kind: "none", Error: "not asked: only the user's own word speaks for it"}
	awaited := previous(bToC, cIn, "", "")
	awaited.Answered = time.Time{}

	for name, in := range map[string][]report.Redeemed{
		"linear":    {b, c, a, c},
		"branch":    {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sb"), previous("192.0.2.9:7", cIn, "token", "se")), b, a, redeemed("se", "e", "192.0.2.9:7", cIn)},
		"two-paths": {b, a, redeemed("sf", "f", "203.0.113.1:5", "203.0.113.2:6")},
		// Thesis section 3.2.2: H4 asks H3, H3 asks H2, H2 asks H1 and H3, H3 asks H2, which has been asked.
		"loop": {
			redeemed("s3", "h3", "192.0.2.3:4000", "192.0.2.4:4", previous("192.0.2.2:2000", "192.0.2.3:2", "token", "s2")),
			redeemed("s2", "h2", "192.0.2.2:2000", "192.0.2.3:2", previous("192.0.2.1:1000", "192.0.2.2:1", "token", "s1"), previous("192.0.2.3:3000", "192.0.2.2:3", "token", "s3b")),
			redeemed("s3b", "h3", "192.0.2.3:3000", "192.0.2.2:3", previous("192.0.2.2:2000", "192.0.2.3:2", "token", "s2b")),
			with(redeemed("s2b", "h2", "192.0.2.2:2000", "192.0.2.3:2"), func(r *report.Redeemed) {
				r.Report.Kind, r.Report.SameAs, r.Report.Connection, r.Report.Processes = report.KindDuplicate, "s2", nil, nil
			}),
			redeemed("s1", "h1", "192.0.2.1:1000", "192.0.2.2:1"),
		},
		"loop-without-end": {a, redeemed("sx", "x", bToC, cIn, previous(cToD, dIn, "token", "sy")), redeemed("sy", "y", cToD, dIn, previous(bToC, cIn, "token", "sx"))},
		"sealed":           {c},
		"missing":          {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "none", "ask 192.0.2.2:113: connection refused"))},
		// Somebody asked the host before the one that does not answer: nobody's word joins what comes to that and what leads away.
		"missing-in-the-middle": {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "none", "ask 192.0.2.2:113: connection refused")), a},
		"awaited":               {redeemed("sc", "c", cToD, dIn, awaited)},
		"legacy":                {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "legacy", "968 , 22 : USERID : UNIX : alice"))},
		"refused":               {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "error", "NO-USER"))},
		"decoy": {c, with(redeemed("sb", "b", bToC, cIn), func(r *report.Redeemed) {
			r.Report.Kind, r.Report.Reason, r.Report.Connection, r.Report.Processes = report.KindNone, "no user: no such connection", nil, nil
		})},
		"duplicate":           {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sdup")), duplicate, b, a},
		"duplicate-of-sealed": {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sdup")), duplicate},
		"duplicate-alone":     {duplicate},
		"not-asked":           {redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sb"), notAsked, word), b, a},
		"begins-not-asked":    {redeemed("sc", "c", cToD, dIn, notAsked)},
		"no-trace-back":       {with(c, func(r *report.Redeemed) { r.Traceback = nil })},
		"not-recursive":       {with(redeemed("sc", "c", cToD, dIn), func(r *report.Redeemed) { r.Report.Request.Type, r.Report.Request.SID = "SV", "" })},
		"inbound": {with(redeemed("sb", "b", bIn, aToB, previous(aToB, bIn, "token", "sa")), func(r *report.Redeemed) {
			r.Report.Connection.Direction, r.Report.Request.OnBehalf = host.Inbound, true
		}), a},
		"hostile": {with(redeemed("sc", "\x1b[2Jc", cToD, "[fe80::1%\x1b[31m]:22", previous(bToC, "[fe80::1%\x1b[31m]:22", "legacy", "\x1b]0;gone\x07")), func(r *report.Redeemed) {
			r.Report.Host.OS, r.Report.Connection.User = "Linux\n1. forged", "\u202eevil"
			r.Report.Processes[0].Args = []string{"\x1b[31mred", "\xff\u009b"}
			r.Report.Request.Type = "SV\r"
			r.Report.Gaps = []host.Gap{{What: "\x1b", Why: "\x1b"}}
			r.Report.Previous[0].Reasons = []string{"\x1b[0m"}
		})},
		"begins":   {a},
		"no-owner": {with(redeemed("sa", "a", aToB, bIn), func(r *report.Redeemed) { r.Report.Connection.Owners, r.Report.Processes = nil, nil })},
		"owners-hidden": {with(redeemed("sa", "a", aToB, bIn), func(r *report.Redeemed) {
			r.Report.Gaps = []host.Gap{{What: "owners", Why: "other users' processes"}, {What: "clock", Why: "operation not permitted"}}
		})},
		"bound": {with(redeemed("sa", "a", aToB, bIn), func(r *report.Redeemed) {
			r.Report.Gaps = []host.Gap{{What: "trace", Why: "bound: 512 processes"}, {What: "clock", Why: "operation not permitted"}}
		})},
		"many-bounds": {with(redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "sa")), func(r *report.Redeemed) {
			for i := range maxGaps + 3 {
				r.Report.Gaps = append(r.Report.Gaps, host.Gap{PID: 100 + i, What: "descriptors", Why: "bound: deadline"})
			}
		}), a},
		"nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			got := Text(Build(Of(in...)))
			golden(t, filepath.Join("testdata", name+".txt"), got)
			for _, l := range strings.Split(got, "\n") {
				if strings.TrimRight(l, " ") != l || strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("line %q", l)
				}
			}
			// Every report given is in the picture, by its own token or by that of which it is a duplicate.
			for _, r := range in {
				if !strings.Contains(got, r.Token) && !strings.Contains(got, r.Report.SameAs) {
					t.Errorf("%s was dropped", r.Token)
				}
			}
		})
	}
}

// Trace-back records are not under a token's hash: hosts that lie may name each other in every way.
func TestManyPaths(t *testing.T) {
	const n = 40
	var rs []report.Redeemed
	for i := range n {
		var asked []stop.Traceback
		for j := range n {
			asked = append(asked, previous(fmt.Sprintf("198.51.100.%d:7", j), fmt.Sprintf("198.51.100.%d:22", i), "token", fmt.Sprintf("s%d", j)))
		}
		rs = append(rs, redeemed(fmt.Sprintf("s%d", i), "liar", fmt.Sprintf("198.51.100.%d:7", i), cIn, asked...))
	}
	c := Build(Of(rs...))
	left := slices.ContainsFunc(c.Omitted, func(o Omission) bool { return o.What == "paths" && o.Count > 0 })
	if len(c.Paths) != maxPaths || !left {
		t.Errorf("%d paths, and that some are left out is said: %t", len(c.Paths), left)
	}
}
