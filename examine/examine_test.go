package examine

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A shelf keeps what it is given, and remembers what was found.
type shelf struct {
	reports  [][]byte
	findings []stop.Finding
	err      error // of keeping
	foundErr error
}

func (k *shelf) Keep(_ context.Context, b []byte, _ stop.Payer) (stop.Token, error) {
	if k.err != nil {
		return stop.Token{}, k.err
	}
	k.reports = append(k.reports, bytes.Clone(b))
	return stop.TokenOf(b), nil
}

func (k *shelf) Found(_ context.Context, f stop.Finding) error {
	k.findings = append(k.findings, f)
	return k.foundErr
}

// found returns what was found last, and checks that it is of the report that was kept last; zero where it is not.
func (k *shelf) found(t *testing.T) stop.Finding {
	t.Helper()
	if len(k.findings) == 0 || k.findings[len(k.findings)-1].Token != stop.TokenOf(k.reports[len(k.reports)-1]) {
		return stop.Finding{}
	}
	return k.findings[len(k.findings)-1]
}

// last returns the report kept last, and checks that the token is of its bytes.
func (k *shelf) last(t *testing.T, token stop.Token) report.Report {
	t.Helper()
	b := k.reports[len(k.reports)-1]
	if stop.TokenOf(b) != token {
		t.Errorf("token %s is not the hash of the report", token)
	}
	r, err := report.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// recording is the host of thesis Appendix B.1 with a password and a login: telnet to 3.3.3.3:23, in a
// session from 1.1.1.1:616.
func recording(t *testing.T) host.Recording {
	t.Helper()
	b, err := os.ReadFile("../testdata/thesis/b1.json")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range rec.Processes {
		if p.Name == "csh" {
			rec.Processes[i].Job = &host.Job{ID: "44", Source: host.JobEnvironment}
		}
		if p.Name != "telnet" {
			continue
		}
		p.Args = []string{"telnet", "--password", "hunter2", "3.3.3.3"}
		p.CWD, p.Exe, p.ExeSHA256, p.ExeBuildID = "/home/user1", "/usr/bin/telnet", "00", "11"
		p.Login = &host.Login{Source: host.LoginEnvironment, Remote: netip.MustParseAddrPort("198.51.100.7:5"), Local: netip.MustParseAddrPort("2.2.2.2:22")}
		p.Job = &host.Job{ID: "42", SubmitHost: "a", Source: host.JobCgroup, ClaimedID: "43"}
		p.Descriptors = append(p.Descriptors, host.Descriptor{FDs: []int{9}, Kind: host.File, Path: "/home/user1/notes", Mode: host.Read})
		rec.Processes[i] = p
	}
	rec.Sockets = append(rec.Sockets, host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:22"), Remote: netip.MustParseAddrPort("1.1.1.1:616"),
		State: "ESTABLISHED", Direction: host.Inbound, DirectionSource: host.FromKernel, Object: "22 from 1.1.1.1:616"},
		host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:4000"), Remote: netip.MustParseAddrPort("3.3.3.3:24"), State: "TIME-WAIT", Direction: host.Outbound},
		host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:4001"), Remote: netip.MustParseAddrPort("3.3.3.3:24"), State: "ESTABLISHED", UID: 1000, Inode: 5, Object: "5"},
		host.Socket{Protocol: host.TCP, Local: netip.MustParseAddrPort("2.2.2.2:4002"), Remote: netip.MustParseAddrPort("3.3.3.3:24"), State: "ESTABLISHED", UID: 1000,
			Object: "6", Direction: host.Inbound, DirectionSource: host.FromListener})
	return rec
}

func examiner(t *testing.T) (*Examiner, *shelf) {
	k := &shelf{}
	return &Examiner{Host: &host.Replay{Recording: recording(t)}, Keeper: k, Tracer: k, Name: "stopd", Version: "0", Sources: func() []string { return []string{"proc"} },
		Deadline: time.Minute, Trace: trace.Defaults, Save: AllGroups,
		UserName: func(context.Context, uint32) string { return "user1" }}, k
}

// question asks in the form of the wire, from 3.3.3.3 to 2.2.2.2.
func question(t *testing.T, line string) stop.Question {
	t.Helper()
	r, err := stop.ParseRequest([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return r.About(netip.MustParseAddr("3.3.3.3"), netip.MustParseAddr("2.2.2.2"), time.Date(2001, 4, 1, 12, 1, 0, 5, time.UTC))
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		line      string
		kind, sid string
		processes int
		previous  []string
	}{
		{"968,23", report.KindID, "", 0, nil},
		{"968,23:ID", report.KindID, "", 0, nil},
		{"968,23:ID_REC:92847523456", report.KindID, "92847523456", 0, []string{"1.1.1.1:616", "198.51.100.7:5"}},
		{"968,23:SV", report.KindSV, "", 6, []string{"1.1.1.1:616", "198.51.100.7:5"}},
		{"968,23:SV_REC:0", report.KindSV, "0", 6, []string{"1.1.1.1:616", "198.51.100.7:5"}},
	} {
		t.Run(c.line, func(t *testing.T) {
			x, k := examiner(t)
			q := question(t, c.line)
			got, err := x.Examine(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			r, f := k.last(t, got.Token), k.found(t)
			if r.Kind != c.kind || len(r.Processes) != c.processes || (len(r.Users) > 0) != (c.processes > 0) || c.processes == 0 && len(r.Channels) > 0 {
				t.Errorf("kind %s, %d processes, %d users", r.Kind, len(r.Processes), len(r.Users))
			}
			want := report.Request{Time: q.Time, Type: q.Type.String(), SID: c.sid, Local: q.Local, Remote: q.Remote, Requester: q.Requester}
			if r.Request != want {
				t.Errorf("the request is %+v", r.Request)
			}
			if co := r.Connection; co.UID != 1000 || co.User != "user1" || co.Direction != host.Outbound || co.DirectionSource != host.FromKernel || co.State != "ESTABLISHED" {
				t.Errorf("the connection is %+v", co)
			}
			if r.Host.Name == "" || r.Tool.Name != "stopd" || len(r.Salt) != 64 {
				t.Errorf("host %q, tool %q, salt %q", r.Host.Name, r.Tool.Name, r.Salt)
			}
			var previous, found []string
			for _, p := range r.Previous {
				previous = append(previous, p.Remote.String())
			}
			for _, p := range f.Previous {
				found = append(found, p.Remote.String())
				if p.Corroborated != (p.Remote.Port() == 616) || p.Outbound {
					t.Errorf("candidate %+v", p)
				}
			}
			if d := cmp.Diff(c.previous, previous); d != "" {
				t.Errorf("in the report: %s", d)
			}
			if !q.Type.Recursive() {
				previous = nil // nobody is asked, so nobody is told
				if len(k.findings) > 0 {
					t.Errorf("found are %+v", k.findings)
				}
			}
			if d := cmp.Diff(previous, found); d != "" {
				t.Errorf("to be asked: %s", d)
			}
			if q.Type.Recursive() {
				at, err := x.Find(t.Context(), q)
				if err != nil || f.Token != got.Token || f.Type != q.Type || f.SID != q.SID || f.Requester != q.Requester || f.Connection != at {
					t.Errorf("found is %+v, %v", f, err)
				}
			}
		})
	}
}

func TestWhoIsAnswered(t *testing.T) {
	for _, c := range []struct {
		name, line string
		ok         bool
	}{
		{"outbound", "968,23:SV", true},
		{"no such connection", "969,23:SV", false},
		{"no owner", "4000,24:SV", false},
		{"unknown direction", "4001,24:SV", true},
		{"inbound by a hint", "4002,24:SV", true},
		{"inbound, on behalf", "22,616:SV:1.1.1.1", true},
		{"inbound to a port, on behalf", "22,617:SV:1.1.1.1", false},
		{"outbound, on behalf", "968,23:SV:3.3.3.3", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, k := examiner(t)
			q := question(t, c.line)
			for what, ask := range map[string]func() error{
				"find":    func() error { _, err := x.Find(t.Context(), q); return err },
				"examine": func() error { _, err := x.Examine(t.Context(), q); return err },
				"look":    func() error { _, err := x.Look(t.Context(), q); return err },
			} {
				if err := ask(); (err == nil) != c.ok || err != nil && !errors.Is(err, stop.ErrNoUser) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if want := map[bool]int{true: 1}[c.ok]; len(k.reports) != want {
				t.Errorf("%d reports kept", len(k.reports))
			}
		})
	}
	x, _ := examiner(t)
	// Who is answered on a hint alone is not named for it.
	rec := recording(t)
	hinted := rec.Sockets[len(rec.Sockets)-1]
	for i, p := range rec.Processes {
		if p.Name == "telnet" {
			rec.Processes[i].Descriptors = append(p.Descriptors, host.Descriptor{FDs: []int{10}, Kind: host.TCP, Object: hinted.Object, Local: hinted.Local, Remote: hinted.Remote,
				State: hinted.State, Direction: hinted.Direction, DirectionSource: hinted.DirectionSource})
		}
	}
	x.Host = &host.Replay{Recording: rec}
	if r, err := x.Look(t.Context(), question(t, "4002,24:SV")); err != nil || len(r.Connection.Owners) == 0 || len(r.Previous) == 0 ||
		slices.ContainsFunc(r.Previous, func(p trace.Previous) bool { return p.Remote == hinted.Remote }) {
		t.Errorf("by a hint: %v, %+v, previous hosts %+v", err, r.Connection, r.Previous)
	}
	x, k := examiner(t)
	q := question(t, "22,616:SV")
	q.Requester = netip.MustParseAddr("1.1.1.1")
	q.Remote = netip.AddrPortFrom(q.Requester, 616)
	if _, err := x.Examine(t.Context(), q); !errors.Is(err, stop.ErrNoUser) {
		t.Errorf("an inbound connection is answered to its other end: %v", err)
	}
	q = question(t, "22,616:SV_REC:7:1.1.1.1")
	got, err := x.Examine(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	r := k.last(t, got.Token)
	if !r.Request.OnBehalf || r.Request.Requester != netip.MustParseAddr("3.3.3.3") || r.Connection.Direction != host.Inbound {
		t.Errorf("on behalf: %+v, %+v", r.Request, r.Connection)
	}
}

// What is told of a connection is the same whichever of the host's addresses the request came to, and tells it from
// others and its owner from other users. Nobody without the secret can make it.
func TestFind(t *testing.T) {
	x, _ := examiner(t)
	find := func(line, local string) stop.Connection {
		t.Helper()
		q := question(t, line)
		q.Local = netip.AddrPortFrom(netip.MustParseAddr(local), q.Local.Port())
		c, err := x.Find(t.Context(), q)
		if err != nil || c.ID == 0 {
			t.Fatalf("%s: %+v, %v", line, c, err)
		}
		return c
	}
	asked := find("968,23:SV", "2.2.2.2")
	if again := find("968,23:ID_REC:7", "192.0.2.1"); again != asked {
		t.Errorf("at another address: %+v, not %+v", again, asked)
	}
	if own := find("4001,24:SV", "2.2.2.2"); own.ID == asked.ID || own.Owner != asked.Owner {
		t.Errorf("another connection of the user: %+v and %+v", own, asked)
	}
	root := find("22,616:SV:1.1.1.1", "2.2.2.2")
	if root.ID == asked.ID || root.Owner == asked.Owner {
		t.Errorf("another user's: %+v and %+v", root, asked)
	}
	x.Secret = []byte("another")
	if other := find("968,23:SV", "2.2.2.2"); other.ID == asked.ID || other.Owner == asked.Owner {
		t.Errorf("with another secret: %+v", other)
	}
	x.Host = hiddenHost{x.Host}
	hidden := find("968,23:SV", "2.2.2.2")
	x.Host = x.Host.(hiddenHost).Host
	if of := find("968,23:SV", "2.2.2.2"); hidden.ID != of.ID || hidden.Owner == of.Owner {
		t.Errorf("hidden: %+v, and not %+v", hidden, of)
	}
}

func TestSalt(t *testing.T) {
	x, k := examiner(t)
	q := question(t, "968,23:SV")
	seen := map[stop.Token]bool{}
	for range 3 {
		got, err := x.Examine(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		seen[got.Token] = true
	}
	if len(seen) != 3 {
		t.Errorf("three answers to one question have %d tokens", len(seen))
	}
	a, _ := report.Decode(k.reports[0])
	b, _ := report.Decode(k.reports[1])
	if d := cmp.Diff(a, b, cmpopts.IgnoreFields(report.Report{}, "Salt"), cmpopts.IgnoreUnexported(report.Report{}, trace.End{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("they differ in more than the salt: %s", d)
	}
}

func TestDecline(t *testing.T) {
	x, k := examiner(t)
	first := stop.TokenOf([]byte("first"))
	for _, c := range []struct {
		why, kind, sameAs string
		first             stop.Token
	}{
		{"the requester may not ask", report.KindNone, "", stop.Token{}},
		{"duplicate", report.KindDuplicate, first.String(), first},
	} {
		token, err := x.Decline(t.Context(), question(t, "968,23:SV_REC:7:1.1.1.1"), c.why, c.first)
		if err != nil {
			t.Fatal(err)
		}
		r := k.last(t, token)
		if r.Kind != c.kind || r.Reason != c.why || r.SameAs != c.sameAs || r.Connection != nil || len(r.Processes) > 0 {
			t.Errorf("%s: %+v", c.why, r)
		}
		if r.Request.SID != "7" || !r.Request.OnBehalf {
			t.Errorf("%s: the request is %+v", c.why, r.Request)
		}
		// Its trace-back leads nowhere, and is recorded as those that lead somewhere.
		want := stop.Finding{Token: token, Type: stop.SVRec, SID: 7, Requester: netip.MustParseAddr("3.3.3.3")}
		if d := cmp.Diff(want, k.found(t), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); d != "" {
			t.Errorf("%s: found is %s", c.why, d)
		}
	}
}

// A blindHost cannot be looked at.
type blindHost struct{ host.Host }

func (blindHost) Snapshot(context.Context) (host.Snapshot, error) {
	return nil, errors.New("/proc is gone")
}

func TestFailures(t *testing.T) {
	x, k := examiner(t)
	k.err = errors.New("disk broke")
	q := question(t, "968,23:SV_REC:7")
	if _, err := x.Examine(t.Context(), q); !errors.Is(err, k.err) {
		t.Errorf("examine: %v", err)
	}
	if _, err := x.Decline(t.Context(), q, "why", stop.Token{}); !errors.Is(err, k.err) {
		t.Errorf("decline: %v", err)
	}
	if len(k.findings) > 0 {
		t.Errorf("of what was not kept, found are %+v", k.findings)
	}
	k.err, k.foundErr = nil, errors.New("the tracer ended")
	if _, err := x.Examine(t.Context(), q); !errors.Is(err, k.foundErr) {
		t.Errorf("examine, without a tracer: %v", err)
	}
	if _, err := x.Decline(t.Context(), q, "why", stop.Token{}); !errors.Is(err, k.foundErr) {
		t.Errorf("decline, without a tracer: %v", err)
	}
	k.foundErr, k.reports = nil, nil
	x.Host = blindHost{x.Host}
	if _, err := x.Examine(t.Context(), q); err == nil || errors.Is(err, stop.ErrNoUser) || len(k.reports) != 0 {
		t.Errorf("a host that cannot be looked at: %v, %d reports", err, len(k.reports))
	}
	if _, err := x.Examine(t.Context(), question(t, "968,23")); err != nil {
		t.Errorf("ID needs no look: %v", err)
	}
}

// Of a connection that leaves the host by another network namespace's link nobody can be asked.
func TestElsewhere(t *testing.T) {
	got := looked{home: 1}.candidates([]trace.Previous{{NetNS: 1}, {NetNS: 2}, {}})
	for i, want := range []bool{false, true, false} {
		if got[i].Elsewhere != want {
			t.Errorf("%d: %+v", i, got[i])
		}
	}
	if got := (looked{}).candidates([]trace.Previous{{NetNS: 2}}); got[0].Elsewhere {
		t.Errorf("where the daemon's own is not known: %+v", got)
	}
}
