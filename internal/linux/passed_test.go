package linux

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/conntrack"
)

// masqueraded is the entry of a connection that a machine has made from behind this host, 192.0.2.2, to 192.0.2.3:80.
func masqueraded(from string, as uint16) conntrack.Entry {
	inner, far := netip.MustParseAddrPort(from), netip.MustParseAddrPort("192.0.2.3:80")
	return conntrack.Entry{Replied: true, Original: conntrack.Tuple{Src: inner, Dst: far},
		Reply: conntrack.Tuple{Src: far, Dst: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), as)}}
}

// remembered is what is remembered of a packet, as text.
func remembered(p *passed, packet conntrack.Tuple, now time.Time, start time.Time) (got []string) {
	since := func(t time.Time) string {
		if t.IsZero() {
			return "?"
		}
		return fmt.Sprint(t.Sub(start).Seconds())
	}
	for _, x := range p.of(packet, now) {
		got = append(got, fmt.Sprintf("%s %s-%s", x.Original.Src, since(x.opened), since(x.removed)))
	}
	return got
}

func TestPassed(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	first, second, noted := masqueraded("10.0.0.7:40000", 40000), masqueraded("10.0.0.8:40000", 40000), masqueraded("10.0.0.9:40000", 40000)
	noted.Begun, noted.Ended = at(2), at(3)
	type event struct {
		at    int
		kind  conntrack.Kind
		entry conntrack.Entry
	}
	for name, c := range map[string]struct {
		events []event
		asked  int
		want   []string
	}{
		"open":                         {[]event{{1, conntrack.New, first}}, 2, []string{"10.0.0.7:40000 1-?"}},
		"closed":                       {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}}, 64, []string{"10.0.0.7:40000 1-5"}},
		"closed too long ago":          {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}}, 65, nil},
		"its beginning was not told":   {[]event{{5, conntrack.Destroyed, first}}, 6, []string{"10.0.0.7:40000 ?-5"}},
		"its end was not told":         {[]event{{1, conntrack.New, first}, {5, conntrack.New, first}}, 6, []string{"10.0.0.7:40000 5-?"}},
		"the port is used again":       {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}, {6, conntrack.New, second}}, 7, []string{"10.0.0.8:40000 6-?", "10.0.0.7:40000 1-5"}},
		"by the same machine":          {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}, {6, conntrack.New, first}}, 7, []string{"10.0.0.7:40000 6-?", "10.0.0.7:40000 1-5"}},
		"by the same machine, closed":  {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}, {6, conntrack.New, first}, {7, conntrack.Destroyed, first}}, 8, []string{"10.0.0.7:40000 6-7"}},
		"nobody answered":              {[]event{{1, conntrack.New, unanswered(first)}, {5, conntrack.Destroyed, unanswered(first)}}, 6, nil},
		"nobody answered any more":     {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}, {6, conntrack.New, unanswered(first)}, {7, conntrack.Destroyed, unanswered(first)}}, 8, []string{"10.0.0.7:40000 1-5"}},
		"another has its packets":      {[]event{{1, conntrack.New, first}, {5, conntrack.New, second}}, 6, []string{"10.0.0.8:40000 5-?", "10.0.0.7:40000 1-?"}},
		"another long had them":        {[]event{{1, conntrack.New, first}, {5, conntrack.New, second}}, 70, []string{"10.0.0.8:40000 5-?"}},
		"after the earlier was long":   {[]event{{1, conntrack.New, first}, {5, conntrack.Destroyed, first}, {6, conntrack.New, second}}, 70, []string{"10.0.0.8:40000 6-?"}},
		"the kernel noted it":          {[]event{{5, conntrack.New, noted}, {9, conntrack.Destroyed, noted}}, 10, []string{"10.0.0.9:40000 2-3"}},
		"changes are not looked at":    {[]event{{1, conntrack.Updated, first}}, 2, nil},
		"of a zone and of the default": {[]event{{1, conntrack.New, first}, {2, conntrack.New, inZone(first, 7)}}, 3, []string{"10.0.0.7:40000 2-?", "10.0.0.7:40000 1-?"}},
	} {
		p := newPassed(time.Minute, 100)
		for _, e := range c.events {
			p.take(conntrack.Event{Kind: e.kind, Entry: e.entry}, at(e.at))
		}
		if got := remembered(p, first.Reply, at(c.asked), start); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if n, _, _, _ := p.level(); n < len(c.want) {
			t.Errorf("%s: %d are remembered", name, n)
		}
	}
}

func unanswered(e conntrack.Entry) conntrack.Entry {
	e.Replied = false
	return e
}

func inZone(e conntrack.Entry, zone uint16) conntrack.Entry {
	e.Zone = zone
	return e
}

// A connection is found by what either end sends.
func TestPassedPackets(t *testing.T) {
	tuple := func(src, dst string) conntrack.Tuple {
		return conntrack.Tuple{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
	}
	for name, e := range map[string]conntrack.Entry{
		"masquerade":   {Original: tuple("10.0.0.7:1", "192.0.2.3:80"), Reply: tuple("192.0.2.3:80", "192.0.2.2:1")},
		"port forward": {Original: tuple("192.0.2.3:1", "192.0.2.2:2222"), Reply: tuple("10.0.0.7:22", "192.0.2.3:1")},
		"hairpin":      {Original: tuple("10.0.0.7:1", "192.0.2.2:2222"), Reply: tuple("10.0.0.8:22", "10.0.0.1:5")},
	} {
		p := newPassed(time.Minute, 100)
		p.take(conntrack.Event{Kind: conntrack.New, Entry: e}, time.Now())
		for _, packet := range []conntrack.Tuple{e.Original, e.Reply} {
			if got := p.of(packet, time.Now()); len(got) != 1 || got[0].Entry != e {
				t.Errorf("%s: %v: %v", name, packet, got)
			}
			if got := p.of(packet.Back(), time.Now()); len(got) > 0 {
				t.Errorf("%s: %v: %v", name, packet.Back(), got)
			}
		}
		p.take(conntrack.Event{Kind: conntrack.Destroyed, Entry: e}, time.Now())
		if p.of(e.Original, time.Now().Add(time.Hour)); len(p.byPacket) > 0 {
			t.Errorf("%s: %d packets are left of nothing", name, len(p.byPacket))
		}
	}
}

// However many connections there are, what is remembered has a bound; what is open is kept rather than what has ended.
func TestPassedBound(t *testing.T) {
	p := newPassed(time.Minute, 10)
	now := time.Now()
	take := func(kind conntrack.Kind, e conntrack.Entry) {
		p.take(conntrack.Event{Kind: kind, Entry: e}, now)
		if n, limit, _, _ := p.level(); n > limit {
			t.Fatalf("%d of %d", n, limit)
		}
	}
	live := masqueraded("10.0.0.7:1", 1)
	take(conntrack.New, live)
	for i := range 50 {
		e := masqueraded("10.0.0.8:2", uint16(100+i))
		take(conntrack.New, e)
		take(conntrack.Destroyed, e)
	}
	if got := p.of(live.Reply, now); len(got) != 1 {
		t.Errorf("what is open is %v", got)
	}
	if n, _, forgotten, _ := p.level(); n != 10 || forgotten != 41 {
		t.Errorf("%d are remembered, %d forgotten", n, forgotten)
	}
	if p.doubt(now) == "" {
		t.Error("what has ended was forgotten, and nothing is in doubt")
	}
	for i := range 50 { // all open
		take(conntrack.New, masqueraded("10.0.0.8:3", uint16(200+i)))
	}
	// Nor may one packet have many.
	p = newPassed(time.Minute, 1000)
	for i := range 100 {
		take(conntrack.New, masqueraded(fmt.Sprintf("10.0.0.8:%d", 1+i), 7))
	}
	if got := p.of(masqueraded("10.0.0.8:1", 7).Reply, now); len(got) != maxAlike || got[0].Original.Src.Port() != 100 {
		t.Errorf("%d, the latest %v", len(got), got[0])
	}
}

// Where events were lost, what seemed to be open may have ended.
func TestPassedLost(t *testing.T) {
	p := newPassed(time.Minute, 10)
	now := time.Now()
	open, closed := masqueraded("10.0.0.7:1", 1), masqueraded("10.0.0.7:2", 2)
	p.take(conntrack.Event{Kind: conntrack.New, Entry: open}, now)
	p.take(conntrack.Event{Kind: conntrack.Destroyed, Entry: closed}, now)
	if why := p.doubt(now); why != "" {
		t.Error(why)
	}
	p.lose(now)
	if p.doubt(now) == "" || p.doubt(now.Add(time.Minute)) != "" {
		t.Error("it is not in doubt for as long as what has ended is kept")
	}
	if got := p.of(open.Reply, now); len(got) > 0 {
		t.Errorf("%v", got)
	}
	if got := p.of(closed.Reply, now); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if _, _, _, lost := p.level(); lost != 1 {
		t.Errorf("lost %d times", lost)
	}
}
