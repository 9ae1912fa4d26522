package linux

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// A gateway is a network namespace that is asked as the host's own, 192.0.2.2, which remembers what it translates for 10.0.0.0/24.
type gateway struct {
	*Host
	space netspace
}

func newGateway(t *testing.T) gateway {
	t.Helper()
	if untracked() {
		t.Skip(errNoConntrack)
	}
	n := newNetspace(t)
	n.ip(t, "link set lo up", "link add eth0 type bridge", "link set eth0 up", "address add 192.0.2.2/24 dev eth0", "address add 10.0.0.1/24 dev eth0")
	var st unix.Stat_t
	if err := unix.Fstat(n.nsfd, &st); err != nil {
		t.Fatal(err)
	}
	h := openHost(t)
	h.diag.close()
	h.conntrack.close()
	h.rtnetlink.close()
	h.diag, h.conntrack, h.rtnetlink, h.netns = newDiag(n.nsfd), newConntracker(n.nsfd), newRTNetlink(n.nsfd), st.Ino
	h.passed = newPassed(time.Hour, 100)
	return gateway{h, n}
}

// had remembers a connection that has ended.
func (g gateway) had(e conntrack.Entry) {
	g.passed.take(conntrack.Event{Kind: conntrack.New, Entry: e}, time.Now())
	g.passed.take(conntrack.Event{Kind: conntrack.Destroyed, Entry: e}, time.Now())
}

// flowAs is the connection of masqueraded machines, as others know it.
func flowAs(e conntrack.Entry) host.Flow {
	return host.Flow{Protocol: host.TCP, Local: e.Reply.Dst, Remote: e.Reply.Src}
}

// seen looks a flow up that others had, or have.
func (g gateway) seen(t *testing.T, f host.Flow) *host.ForwardedError {
	t.Helper()
	set := g.newSpaces()
	defer set.close()
	e, err := set.follow(t.Context(), set.home, packetOf(f))
	if err != nil {
		t.Fatal(err)
	}
	if e.inside {
		err = set.passedBefore(t.Context(), f, e)
	} else {
		err = g.seenPassing(f, e)
	}
	var passed *host.ForwardedError
	if !errors.As(err, &passed) {
		t.Fatalf("found %v", err)
	}
	return passed
}

// The ends of a machine's connection that has ended were the host's own as well: whatever is left of that, it is one of two.
func TestOwnAmongPassed(t *testing.T) {
	theirs := masqueraded("10.0.0.8:40000", 40000)
	own := conntrack.Entry{Replied: true, Original: theirs.Reply.Back(), Reply: theirs.Reply}
	container := masqueraded("192.0.2.2:41000", 40000) // as far as the routes tell it ends at the host
	for name, arrange := range map[string]func(g gateway){
		"it is tracked":             func(g gateway) { track(t, g.space, own.Original, 0, netip.AddrPort{}, nil, false) },
		"it is remembered":          func(g gateway) { g.had(own) },
		"a container's, remembered": func(g gateway) { g.had(container) },
	} {
		g := newGateway(t)
		g.had(theirs)
		if alone := g.seen(t, flowAs(theirs)); len(alone.Seen) != 1 || alone.Own != nil {
			t.Errorf("%s: before it there is %v", name, alone)
		}
		arrange(g)
		got := g.seen(t, flowAs(theirs))
		if len(got.Seen) != 1 || got.Seen[0].Original.Local != theirs.Original.Src || got.Own == nil || got.Own.Direction != host.Outbound {
			t.Errorf("%s: %v", name, got)
		}
	}
	// Another machine has them now.
	g := newGateway(t)
	g.had(own)
	track(t, g.space, theirs.Original, ctaNATSrc, theirs.Reply.Dst, nil, false)
	if got := g.seen(t, flowAs(theirs)); len(got.Seen) != 1 || got.Own == nil {
		t.Errorf("of a machine's now: %v", got)
	}
}

// The host's own connections are remembered beside what it translates; what it only routes is not.
func TestRemembers(t *testing.T) {
	h := &Host{addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, addrsRead: time.Now().Add(time.Hour)}
	machine := masqueraded("10.0.0.8:40000", 40000)
	for name, c := range map[string]struct {
		entry conntrack.Entry
		want  bool
	}{
		"translated": {machine, true},
		"out":        {conntrack.Entry{Original: machine.Reply.Back(), Reply: machine.Reply}, true},
		"in":         {conntrack.Entry{Original: machine.Reply, Reply: machine.Reply.Back()}, true},
		"routed":     {conntrack.Entry{Original: machine.Original, Reply: machine.Original.Back()}, false},
	} {
		if got := h.remembers(c.entry); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Another machine's connection that was open when last something was told has ended, where the kernel tracks none or another of its packets: it is
// among those seen, and forgotten in time. That on which nothing came back is not told from one that was made up.
func TestPassedUntold(t *testing.T) {
	first, second := masqueraded("10.0.0.7:40000", 40000), masqueraded("10.0.0.8:40000", 40000)
	g := newGateway(t)
	g.passed.take(conntrack.Event{Kind: conntrack.New, Entry: unanswered(first)}, time.Now())
	if got := g.seen(t, flowAs(first)); len(got.Seen) != 1 || !got.Seen[0].Removed.IsZero() || got.Live || got.Doubt == "" {
		t.Errorf("%+v", got)
	}
	if got := g.passed.of(first.Reply, time.Now().Add(2*time.Hour)); len(got) > 0 {
		t.Errorf("it is remembered for ever: %+v", got)
	}
	g.passed.take(conntrack.Event{Kind: conntrack.New, Entry: first}, time.Now())
	track(t, g.space, second.Original, ctaNATSrc, second.Reply.Dst, nil, false)
	got := g.seen(t, flowAs(first))
	if len(got.Seen) != 2 || got.Seen[0].Original.Local != second.Original.Src || got.Seen[1].Original.Local != first.Original.Src || got.Live || got.Doubt == "" {
		t.Errorf("%+v", got)
	}
}

// What is tracked when the host begins to listen is remembered as it is then: another machine that has the ends afterwards is not the only one.
func TestPassedListed(t *testing.T) {
	first, second := masqueraded("10.0.0.7:40000", 40000), masqueraded("10.0.0.8:40000", 40000)
	g := newGateway(t)
	track(t, g.space, first.Original, ctaNATSrc, first.Reply.Dst, nil, false)
	track(t, g.space, tupleOf("10.0.0.7:5", "192.0.2.3:5"), 0, netip.AddrPort{}, nil, false) // routed
	if !g.list(t.Context()) {
		t.Fatal("the list is not whole")
	}
	if n, _, _, _ := g.passed.level(); n != 0 {
		t.Errorf("%d are remembered, and nothing came back on any", n)
	}
	g.passed.list(first, time.Now())
	g.passed.list(first, time.Now())
	if got := remembered(g.passed, first.Reply, time.Now(), time.Now()); !slices.Equal(got, []string{"10.0.0.7:40000 ?-?"}) {
		t.Errorf("remembered is %q", got)
	}
	g.passed.take(conntrack.Event{Kind: conntrack.New, Entry: second}, time.Now())
	g.passed.take(conntrack.Event{Kind: conntrack.Destroyed, Entry: second}, time.Now())
	if got := g.passed.of(first.Reply, time.Now()); len(got) != 2 {
		t.Errorf("of %+v the earlier is missing", got)
	}
}

// Who opened what the kernel has picked up in its middle is not known.
func TestPassedPickedUp(t *testing.T) {
	e := masqueraded("10.0.0.7:22", 22)
	e.PickedUp = true
	p := newPassed(time.Minute, 10)
	p.take(conntrack.Event{Kind: conntrack.New, Entry: e}, time.Now())
	ended := e
	ended.PickedUp = false // the kernel does not tell it any more
	p.take(conntrack.Event{Kind: conntrack.Destroyed, Entry: ended}, time.Now())
	x := p.of(e.Reply, time.Now())[0]
	if d := forwardedOf(flowAs(e), x, 0).Direction; d != host.UnknownDirection {
		t.Errorf("direction is %q", d)
	}
	if d := ownOf(flowAs(e), x).Direction; d != host.UnknownDirection {
		t.Errorf("of the host's own it is %q", d)
	}
}

// A host that remembers nothing of what it passes on has nothing of what is not there.
func TestNothingPassed(t *testing.T) {
	g := newGateway(t)
	g.passed = nil
	nowhere := masqueraded("10.0.0.7:40000", 40000)
	if _, err := g.Find(t.Context(), flowAs(nowhere)); !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
	set := g.newSpaces()
	defer set.close()
	if err := set.passedBefore(t.Context(), flowAs(nowhere), end{}); !errors.Is(err, host.ErrNotFound) {
		t.Error(err)
	}
}
