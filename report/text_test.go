package report_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// checkText checks that nothing in a text can draw on a terminal.
func checkText(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U in %q", r, text)
		}
	}
}

// Whatever names hold, they neither draw on a terminal nor add a line.
func TestTextIsClean(t *testing.T) {
	lines := strings.Count(report.Text(fullReport(func() string { return "x" })), "\n")
	for _, s := range append([]string{"\x9b31m", "a\xffb", "\xe2\x80"}, hostile...) {
		if s == "" {
			continue // unknown: there are fewer lines
		}
		text := report.Text(fullReport(func() string { return s }))
		checkText(t, text)
		if n := strings.Count(text, "\n"); n != lines {
			t.Errorf("with names %q there are %d lines, want %d", s, n, lines)
		}
	}
	// Names that look like a line of the report stay within theirs.
	text := report.Text(named("a\n2: sshd [22]\n- END -"))
	if !strings.Contains(text, `1: a\n2: sshd [22]\n- END - [1]`) || strings.Count(text, "\n- END -\n") != 1 {
		t.Errorf("a name forged a line:\n%s", text)
	}
}

// What is known has a line each, and what is not has none.
func TestTextLines(t *testing.T) {
	n := func(v int) *int { return &v }
	u := func(v uint32) *uint32 { return &v }
	process := func(p host.Process) func(*report.Report) {
		return func(r *report.Report) { r.Processes = []trace.Process{{Index: 1, Role: trace.Primary, Process: p}} }
	}
	descriptor := func(d host.Descriptor) func(*report.Report) {
		return process(host.Process{Descriptors: []host.Descriptor{d}})
	}
	for _, c := range []struct {
		want string
		set  func(*report.Report)
	}{
		{"Not saved: arguments, cwd", func(r *report.Report) { r.Tool.GroupsOff = []string{"arguments", "cwd"} }},
		{"Tool: stopd 0.1.0", func(r *report.Report) { r.Tool.Name, r.Tool.Version = "stopd", "0.1.0" }},
		{"Addresses: 192.0.2.1, 2001:db8::1", func(r *report.Report) {
			r.Host.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		}},
		{"Architecture: amd64", func(r *report.Report) { r.Host.Arch = "amd64" }},
		{"Owners: [34], [35]", func(r *report.Report) { r.Connection = &report.Connection{Owners: []int{34, 35}} }},
		{"Owners: none found", func(r *report.Report) { r.Connection = &report.Connection{Owners: []int{}} }},
		{"Direction: outbound (by counters)", func(r *report.Report) {
			r.Connection = &report.Connection{Direction: host.Outbound, DirectionSource: host.FromCounters}
		}},
		{"Passed on by this host (NAT) for: 10.0.0.7:40000 -> 192.0.2.3:80\nState: ESTABLISHED\nOpened: Sun Apr 1 12:00:00 2001", func(r *report.Report) {
			r.Forwarded = &host.Forwarded{Original: host.Ends{Local: netip.MustParseAddrPort("10.0.0.7:40000"), Remote: netip.MustParseAddrPort("192.0.2.3:80")},
				Direction: host.Outbound, State: "ESTABLISHED", Opened: time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)}
		}},
		{"Passed on by this host (NAT) for: 10.0.0.7:22 <- 192.0.2.3:4000\nNot tracked any more since: Sun Apr 1 12:00:00 2001", func(r *report.Report) {
			r.Forwarded = &host.Forwarded{Original: host.Ends{Local: netip.MustParseAddrPort("10.0.0.7:22"), Remote: netip.MustParseAddrPort("192.0.2.3:4000")},
				Direction: host.Inbound, Removed: time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)}
		}},
		{"Direction: unknown", func(r *report.Report) { r.Connection = &report.Connection{Direction: host.UnknownDirection} }},
		{"   session: 31   login uid: 1000   audit session: 4", process(host.Process{Session: n(31), LoginUID: u(1000), AuditSession: u(4)})},
		{"   login uid: 0", process(host.Process{LoginUID: u(0)})},
		{"   session: 31", process(host.Process{Session: n(31)})},
		{"   Other:\n     netlink ROUTE (rw)", descriptor(host.Descriptor{Kind: "netlink", Name: "ROUTE", Mode: host.ReadWrite})},
		{"   Other:\n     packet", descriptor(host.Descriptor{Kind: "packet"})},
		{"   Other:\n     eventpoll anon_inode:[eventpoll]", descriptor(host.Descriptor{Kind: "eventpoll", Name: "anon_inode:[eventpoll]"})},
		{"   Other:\n     shm /dev/shm/x (w)", descriptor(host.Descriptor{Kind: host.SHM, Path: "/dev/shm/x", Mode: host.Write})},
		{"   Terminals:\n     /dev/ptmx master", descriptor(host.Descriptor{Kind: host.PTY, Path: "/dev/ptmx", Side: host.Master})},
		{"   Pipes:\n     0 -> 38AB64 (r)", descriptor(host.Descriptor{Kind: host.Pipe, Object: "38AB64", Peer: "38AB64", Mode: host.Read})},
		{"   Pipes:\n     38AB64 -> 38AB65 (w)", descriptor(host.Descriptor{Kind: host.Pipe, Object: "38AB64", Peer: "38AB65", Mode: host.Write})},
		{"   Pipes:\n     38AB64 -> 38AB65", descriptor(host.Descriptor{Kind: host.Pipe, Object: "38AB64", Peer: "38AB65", Mode: host.ReadWrite})},
		{"   Pipes:\n     38AB64 -> 38AB65", descriptor(host.Descriptor{Kind: host.Pipe, Object: "38AB64", Peer: "38AB65"})},
	} {
		var r report.Report
		c.set(&r)
		if got := report.Text(r); !strings.Contains(got, "\n"+c.want+"\n") {
			t.Errorf("no %q in\n%s", c.want, got)
		}
	}
	if got := report.Text(report.Report{Connection: &report.Connection{}}); strings.Contains(got, "Owners") {
		t.Errorf("nobody looked for owners:\n%s", got)
	}
}

func TestTextOfUnknowns(t *testing.T) {
	const want = "- BEGIN -\n\nHOST INFORMATION\n\n\nREQUEST INFORMATION\n\n- END -\n"
	if got := report.Text(report.Report{}); got != want {
		t.Errorf("text of nothing:\n%s", got)
	}
	for _, kind := range []string{report.KindNone, report.KindDuplicate} {
		text := report.Text(report.Report{Kind: kind, Reason: "because", SameAs: "token"})
		if want := map[string]string{report.KindNone: "Nothing saved: because\n", report.KindDuplicate: "Duplicate of: token\n"}[kind]; !strings.Contains(text, want) {
			t.Errorf("%s: no %q in\n%s", kind, want, text)
		}
	}
}
