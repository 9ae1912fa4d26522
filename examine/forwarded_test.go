package examine

import (
	"context"
	"errors"
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

// A forwardingHost passes a connection on for other machines.
type forwardingHost struct {
	host.Host
	seen  []host.Forwarded
	own   *host.Socket
	doubt string
}

func (h forwardingHost) Find(context.Context, host.Flow) (host.Socket, error) {
	return host.Socket{}, &host.ForwardedError{Seen: h.seen, Own: h.own, Live: h.doubt == "" && h.seen[0].Removed.IsZero(), Doubt: h.doubt}
}

// behind is a connection of 2.2.2.2:968 with 3.3.3.3:23 that the host passes on for a machine, between two seconds of a minute; 0 is not
// known, and not yet.
func behind(machine, other string, d host.Direction, opened, removed int) host.Forwarded {
	at := func(second int) (t time.Time) {
		if second > 0 {
			t = time.Date(2001, 4, 1, 12, 0, second, 0, time.UTC)
		}
		return t
	}
	return host.Forwarded{Original: host.Ends{Local: netip.MustParseAddrPort(machine), Remote: netip.MustParseAddrPort(other)},
		Translated: host.Ends{Local: netip.MustParseAddrPort("2.2.2.2:968"), Remote: netip.MustParseAddrPort("3.3.3.3:23")},
		Direction:  d, State: "ESTABLISHED", Opened: at(opened), Removed: at(removed)}
}

// The machine is the previous host, and nobody of this host is an owner. It is asked by questions of every type where the host is set up to
// answer for it, on behalf of the other end where its connection is with that.
func TestForwarded(t *testing.T) {
	for _, c := range []struct {
		name, line string
		seen       host.Forwarded
		forwards   bool
		listed     bool // in the report
		found      int  // candidates that the tracer is told of; -1 is that it is told nothing
		onBehalf   bool
	}{
		{"as itself", "968,23:SV_REC:7", behind("1.1.1.1:40000", "2.2.2.2:2222", host.Outbound, 1, 0), false, true, 1, false},
		{"as itself", "968,23:ID_REC:7", behind("1.1.1.1:40000", "2.2.2.2:2222", host.Outbound, 1, 0), false, true, 1, false},
		{"as itself", "968,23:SV", behind("1.1.1.1:40000", "2.2.2.2:2222", host.Outbound, 1, 0), false, true, -1, false},
		{"as itself", "968,23", behind("1.1.1.1:40000", "2.2.2.2:2222", host.Outbound, 1, 0), false, false, -1, false},
		{"masqueraded", "968,23:SV_REC:7", behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, 1, 0), true, true, 1, true},
		{"masqueraded", "968,23:SV", behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, 1, 0), true, true, 1, true},
		{"masqueraded", "968,23", behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, 1, 0), true, true, 1, true},
		{"masqueraded, closed", "968,23:ID", behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, 1, 2), true, true, 1, true},
		{"a port passed on", "968,23:SV_REC:7:3.3.3.3", behind("10.0.0.7:22", "3.3.3.3:23", host.Inbound, 1, 0), true, true, 1, true},
		{"picked up in its middle", "968,23:SV_REC:7", behind("10.0.0.7:22", "2.2.2.2:5", host.UnknownDirection, 1, 0), true, true, 1, true},
		{"a port passed on, masqueraded", "968,23:SV_REC:7:3.3.3.3", behind("10.0.0.7:22", "2.2.2.2:5", host.Inbound, 1, 0), true, true, 1, true},
	} {
		t.Run(c.name+" "+c.line, func(t *testing.T) {
			x, k := examiner(t)
			x.Host, x.Forwards = forwardingHost{x.Host, []host.Forwarded{c.seen}, nil, ""}, c.forwards
			q := question(t, c.line)
			machine := c.seen.Original.Local
			if got, err := x.Find(t.Context(), q); err != nil || got.Owner != x.number("machine %s", machine.Addr()) {
				t.Errorf("found %+v, %v", got, err)
			}
			if _, err := x.Examine(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			if told := len(k.findings) > 0; told != (c.found >= 0) {
				t.Fatalf("the tracer is told %+v", k.findings)
			}
			if c.found >= 0 {
				f := k.findings[0]
				if len(f.Previous) != c.found || f.Type != q.Type {
					t.Fatalf("found is %+v", f)
				}
				p := f.Previous[0]
				if p.Remote != machine || p.Local != c.seen.Original.Remote || !p.Corroborated || p.Elsewhere || p.OnBehalf != c.onBehalf || p.Outbound != (c.seen.Direction == host.Inbound) {
					t.Errorf("%+v", p)
				}
			}
			r, err := report.Decode(k.reports[0])
			if err != nil {
				t.Fatal(err)
			}
			if r.Connection != nil || len(r.Processes) > 0 {
				t.Errorf("an owner is invented: %s", report.Text(r))
			}
			if listed := len(r.Previous) == 1 && slices.Contains(r.Previous[0].Reasons, trace.ReasonNAT); listed != c.listed {
				t.Errorf("previous are %+v", r.Previous)
			}
			if r.Forwarded == nil || *r.Forwarded != c.seen || !slices.Contains(r.Tool.Sources, "conntrack") {
				t.Errorf("passed on is %+v, by %q", r.Forwarded, r.Tool.Sources)
			}
			g := r.Gaps[len(r.Gaps)-1]
			if g.What != "connection" || !strings.Contains(g.Why, machine.String()) || !strings.Contains(g.Why, c.seen.Original.Remote.String()) {
				t.Errorf("gaps are %+v", r.Gaps)
			}
		})
	}
}

// Who has opened a connection to a machine behind the host is not told who answers it, nor that anybody does.
func TestForwardedIn(t *testing.T) {
	x, k := examiner(t)
	x.Host, x.Forwards = forwardingHost{x.Host, []host.Forwarded{behind("10.0.0.7:22", "3.3.3.3:23", host.Inbound, 1, 0)}, nil, ""}, true
	for _, line := range []string{"968,23", "968,23:SV", "968,23:SV_REC:7"} {
		if _, err := x.Examine(t.Context(), question(t, line)); !errors.Is(err, stop.ErrNoUser) || len(k.reports) > 0 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func hasGap(r report.Report, why string) bool {
	return slices.ContainsFunc(r.Gaps, func(g host.Gap) bool { return strings.Contains(g.Why, why) })
}

// Where ports were used again, the time of the question tells which machine is meant, or none is asked.
func TestMeant(t *testing.T) {
	first := func(opened, removed int) host.Forwarded {
		return behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, opened, removed)
	}
	second := func(opened, removed int) host.Forwarded {
		return behind("10.0.0.8:40000", "3.3.3.3:23", host.Outbound, opened, removed)
	}
	own := &host.Socket{Direction: host.Outbound, Closed: time.Date(2001, 4, 1, 12, 0, 10, 0, time.UTC)}
	at := time.Date(2001, 4, 1, 12, 0, 30, 0, time.UTC) // of the question
	for _, c := range []struct {
		name string
		seen []host.Forwarded
		own  *host.Socket
		want string // empty is none
	}{
		{"one", []host.Forwarded{first(1, 0)}, nil, "10.0.0.7"},
		{"one, of which is not known since when", []host.Forwarded{first(0, 0)}, nil, "10.0.0.7"},
		{"one, noticed late", []host.Forwarded{first(31, 0)}, nil, "10.0.0.7"},
		{"one that is no more", []host.Forwarded{first(1, 2)}, nil, "10.0.0.7"},
		{"it was there, and another before it", []host.Forwarded{second(29, 0), first(1, 28)}, nil, "10.0.0.8"},
		{"newer than the question", []host.Forwarded{second(31, 0), first(1, 28)}, nil, ""},
		{"not known since when", []host.Forwarded{second(0, 0), first(1, 28)}, nil, ""},
		{"neither is there any more", []host.Forwarded{second(20, 29), first(1, 19)}, nil, ""},
		{"the same machine again", []host.Forwarded{first(31, 0), first(20, 29), first(1, 19)}, nil, "10.0.0.7"},
		{"the same machine, no more", []host.Forwarded{first(20, 29), first(1, 19)}, nil, "10.0.0.7"},
		{"another one long before", []host.Forwarded{first(20, 29), first(10, 12), second(1, 2)}, nil, ""},
		{"it was there, and the host had it before", []host.Forwarded{second(29, 0)}, own, "10.0.0.8"},
		{"newer than the question, and the host had it before", []host.Forwarded{second(31, 0)}, own, ""},
		{"neither has it any more, nor the host", []host.Forwarded{second(20, 29)}, own, ""},
	} {
		got, ok := meant(&host.ForwardedError{Seen: c.seen, Own: c.own, Live: c.seen[0].Removed.IsZero()}, at)
		if ok != (c.want != "") || ok && got.Original.Local.Addr().String() != c.want {
			t.Errorf("%s: %v, %t", c.name, got, ok)
		}
		x, k := examiner(t)
		x.Host, x.Forwards = forwardingHost{x.Host, c.seen, c.own, ""}, true
		q := question(t, "968,23:SV_REC:7")
		q.Time = at
		if found, err := x.Find(t.Context(), q); err != nil || !ok && found.Owner != x.number("user %d", uint32(nobody)) {
			t.Errorf("%s: %+v, %v", c.name, found, err)
		}
		if _, err := x.Examine(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		r, err := report.Decode(k.reports[0])
		if err != nil {
			t.Fatal(err)
		}
		if f := k.found(t); ok != (len(f.Previous) == 1) || ok != (r.Forwarded != nil) || len(r.Previous) != len(f.Previous) {
			t.Errorf("%s: asked is %+v, and the report has %+v", c.name, f, r.Forwarded)
		}
		if ok := hasGap(r, "the host had it itself until 2001-04-01T12:00:10Z"); ok != (c.own != nil) {
			t.Errorf("%s: of the host's own: %v", c.name, r.Gaps)
		}
		for _, s := range c.seen { // all are there, with their times
			if !hasGap(r, s.String()) {
				t.Errorf("%s: no %v in %v", c.name, s, r.Gaps)
			}
		}
	}
}

// An askedHost remembers what it was asked for, and has nothing.
type askedHost struct {
	host.Host
	flows *[]host.Flow
}

func (h askedHost) Find(_ context.Context, f host.Flow) (host.Socket, error) {
	*h.flows = append(*h.flows, f)
	return host.Socket{}, host.ErrNotFound
}

// What was sent to another host is about that one's end, and about no connection of this host by the same ports.
func TestSentTo(t *testing.T) {
	x, _ := examiner(t)
	var flows []host.Flow
	x.Host = askedHost{x.Host, &flows}
	q := question(t, "968,23:SV_REC:7")
	q.SentTo = netip.MustParseAddr("1.1.1.1")
	if _, err := x.Examine(t.Context(), q); !errors.Is(err, stop.ErrNoUser) {
		t.Error(err)
	}
	want := host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort("1.1.1.1:968"), Remote: netip.MustParseAddrPort("3.3.3.3:23")}
	if len(flows) != 1 || flows[0] != want {
		t.Errorf("looked for %v, want %v", flows, want)
	}
	here := question(t, "968,23:SV_REC:7")
	if x.connectionOf(q, host.Socket{}, errNoConnection).ID == x.connectionOf(here, host.Socket{}, errNoConnection).ID {
		t.Error("two connections have one number")
	}
	flows = nil
	if _, err := x.Examine(t.Context(), here); !errors.Is(err, stop.ErrNoUser) || len(flows) != 2 || !flows[1].Local.Addr().IsUnspecified() {
		t.Errorf("of its own it looked for %v, %v", flows, err)
	}
}

// Where the only one may not be the only one, or no connection, it is named with why, and not asked.
func TestMeantDoubtful(t *testing.T) {
	for _, removed := range []int{0, 2} {
		x, k := examiner(t)
		x.Host, x.Forwards = forwardingHost{x.Host, []host.Forwarded{behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, 1, removed)}, nil, "something was lost"}, true
		if _, err := x.Examine(t.Context(), question(t, "968,23:SV_REC:7")); err != nil {
			t.Fatal(err)
		}
		r, err := report.Decode(k.reports[0])
		if err != nil {
			t.Fatal(err)
		}
		if f := k.found(t); len(f.Previous) > 0 || r.Forwarded != nil || !hasGap(r, "10.0.0.7:40000") || !hasGap(r, "something was lost: none is asked") {
			t.Errorf("asked is %+v, and the report has %+v, %v", f, r.Forwarded, r.Gaps)
		}
	}
}

// A machine's later connection with the same ends is another one: what was asked about the earlier is no answer.
func TestForwardedAgain(t *testing.T) {
	x, _ := examiner(t)
	q := question(t, "968,23:SV_REC:7")
	of := func(opened int) stop.Connection {
		return x.connectionOf(q, host.Socket{}, &host.ForwardedError{Seen: []host.Forwarded{behind("10.0.0.7:40000", "3.3.3.3:23", host.Outbound, opened, 0)}})
	}
	if a, b, again := of(1), of(2), of(1); a.ID == b.ID || a != again || a.Owner != b.Owner {
		t.Errorf("%+v, %+v, again %+v", a, b, again)
	}
}
