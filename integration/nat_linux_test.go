package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// sharedNAT is a lab of its own: b is a gateway that answers for e and f, and for r, which is a gateway for n. All reach the others
// by b, under its address.
var sharedNAT sharedWorld

// Ports of b that are passed on to e, and to f, as they are.
const (
	portsOfE = "10000-10999"
	portsOfF = "11000-11999"
)

// natRules are a gateway's: what comes from within leaves with its own address, some ports are passed on, also for who is within.
const natRules = `table inet gateway {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 192.0.2.2 tcp dport ` + portsOfE + ` dnat ip to 10.0.0.7
		ip daddr 192.0.2.2 tcp dport ` + portsOfF + ` dnat ip to 10.0.0.8
		ip6 daddr 2001:db8::2 tcp dport ` + portsOfE + ` dnat ip6 to fd00::7
		ip daddr 192.0.2.2 tcp dport 2022 dnat ip to 10.0.0.7:22
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.0.0.0/24 ip daddr 192.0.2.0/24 masquerade
		ip saddr 10.0.0.0/24 ip daddr 10.0.0.0/24 ct status dnat masquerade
		ip6 saddr fd00::/64 ip6 daddr 2001:db8::/64 masquerade
	}
}
`

// nestedRules are those of the gateway behind it.
const nestedRules = `table inet gateway {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr 10.0.0.9 tcp dport ` + portsOfE + ` dnat ip to 10.1.0.7
	}
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.1.0.0/24 ip daddr != 10.1.0.0/24 masquerade
	}
}
`

func newNATWorld(ctx context.Context) (*world, error) {
	w := &world{}
	if err := w.settle(ctx, packages); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		name, gateway string
		asks          []string // on behalf of others
		addrs         []string
	}{
		{"e", "10.0.0.1", []string{"10.0.0.1/32", "fd00::1/128"}, []string{"10.0.0.7/24", "fd00::7/64"}},
		{"f", "10.0.0.1", []string{"10.0.0.1/32", "fd00::1/128"}, []string{"10.0.0.8/24", "fd00::8/64"}},
		{"r", "10.0.0.1", []string{"10.0.0.1/32"}, []string{"10.0.0.9/24"}},
		{"n", "10.1.0.1", []string{"10.1.0.1/32"}, []string{"10.1.0.7/24"}},
	} {
		var addrs []netip.Prefix
		for _, a := range x.addrs {
			addrs = append(addrs, netip.MustParsePrefix(a))
		}
		h, err := w.lab.AddHost(ctx, x.name, addrs...)
		if err != nil {
			return nil, err
		}
		var flags []string
		for _, a := range x.asks {
			flags = append(flags, "-on-behalf", a)
		}
		s, err := w.addSite(ctx, h, flags...)
		if err != nil {
			return nil, err
		}
		w.behind = append(w.behind, s)
		setUp := "ip route add default via " + x.gateway
		if len(addrs) > 1 {
			setUp += "; ip route add default via fd00::1"
		}
		if err := run(ctx, h, setUp); err != nil {
			return nil, err
		}
	}
	for _, s := range w.sites() {
		// All links are one: no host is to learn that there is a shorter way.
		if err := run(ctx, s.Host, `for f in all eth0; do for r in ipv4/conf/$f/send_redirects ipv4/conf/$f/accept_redirects ipv6/conf/$f/accept_redirects; do
	echo 0 >/proc/sys/net/$r; done; done`); err != nil {
			return nil, err
		}
	}
	for _, s := range append([]*site.Site{w.b}, w.behind...) {
		// Nobody asks again for them where this machine was too slow.
		if err := s.Configure("timeout", `timeout = "4s"`); err != nil {
			return nil, err
		}
		if err := s.Daemon.Stop(ctx); err != nil {
			return nil, err
		}
		if err := s.Run(ctx); err != nil {
			return nil, err
		}
	}
	for _, g := range []struct {
		s            *site.Site
		addrs, rules string
	}{
		{w.b, "ip address add 10.0.0.1/24 dev eth0; ip address add fd00::1/64 dev eth0 nodad", natRules},
		{w.behind[2], "ip address add 10.1.0.1/24 dev eth0", nestedRules},
	} {
		if err := becomeGateway(ctx, g.s, g.addrs, g.rules); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// run runs lines of a shell as root of a host.
func run(ctx context.Context, h *netlab.Host, script string) error {
	_, err := h.Run(ctx, "sh", "-ec", script)
	return err
}

// becomeGateway has a host translate, and its daemon answer for what it translates. What has ended is soon not tracked any more.
func becomeGateway(ctx context.Context, s *site.Site, addrs, rules string) error {
	if err := s.Host.WriteFile("/etc/nftables.gateway", []byte(rules), 0o600, "root"); err != nil {
		return err
	}
	err := run(ctx, s.Host, addrs+`
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
nft -f /etc/nftables.gateway
for s in fin_wait close_wait last_ack time_wait close; do echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_$s; done
`)
	if err != nil {
		return err
	}
	if err := s.Configure("answer", "answer = true"); err != nil {
		return err
	}
	if err := s.Daemon.Stop(ctx); err != nil {
		return err
	}
	return s.Run(ctx)
}

// A natStage is one scenario there.
type natStage struct {
	*stage
	e, f, r, n *site.Site
	toldBy     string // the type of questions by which is seen what the gateway knows
}

// newNATStage has others at work behind the gateway: f has connections of its own with the victim, and passes those of d on to it.
func newNATStage(t *testing.T) *natStage {
	t.Helper()
	w := sharedNAT.made(t, newNATWorld)
	s := &natStage{w.stage(t), w.behind[0], w.behind[1], w.behind[2], w.behind[3], "ID"}
	t.Cleanup(s.hangUp)
	relay := s.port + 1000
	theirs := s.on(s.f, "service", "socat", fmt.Sprintf("TCP-LISTEN:%d,fork,reuseaddr", relay), fmt.Sprintf("TCP:%s:%d", s.c.Host.Addr(), victimPort))
	s.must(s.f.Host.WaitListen(s.ctx, relay))
	own := s.on(s.f, "dave", "clients", fmt.Sprintf("%s:%d:2:hello", s.c.Host.Addr(), victimPort))
	through := s.on(s.d, "dave", "clients", fmt.Sprintf("b:%d:2:hello", relay))
	for _, d := range []*netlab.Daemon{through, own, theirs} {
		t.Cleanup(func() { s.stop(d) })
	}
	s.wait("wait for the innocents' connections", func() (bool, error) {
		cs, err := s.ofVictim()
		return len(cs) == 4, err
	})
	return s
}

// ofVictim are the victim's connections, seen from the gateway.
func (s *natStage) ofVictim() ([]connection, error) {
	cs, err := connections(s.ctx, s.c.Host)
	var found []connection
	for _, c := range cs {
		if c.local.Port() == victimPort && s.of(s.b, c.remote.Addr()) {
			found = append(found, connection{local: c.remote, remote: c.local})
		}
	}
	return found, err
}

// intrude does something that makes one connection more with the victim, and returns that.
func (s *natStage) intrude(does func()) connection {
	s.t.Helper()
	before, err := s.ofVictim()
	s.must(err)
	does()
	s.heard(s.c)
	var more []connection
	s.wait("wait for the connection with the victim", func() (bool, error) {
		cs, err := s.ofVictim()
		more = slices.DeleteFunc(cs, func(c connection) bool {
			return slices.ContainsFunc(before, func(o connection) bool { return o.local == c.local && o.remote == c.remote })
		})
		return len(more) == 1, err
	})
	s.wait("wait until the gateway has been told of the connection", func() (bool, error) {
		r, err := s.ask(s.toldBy, more[0])
		f := r.Report.Forwarded
		return f != nil && !f.Opened.IsZero() && !f.Opened.After(r.Report.Request.Time), err
	})
	return more[0]
}

// ask has the victim ask the gateway about a connection that need not be there any more.
func (s *natStage) ask(typ string, c connection) (report.Redeemed, error) {
	return s.askFrom(s.c, typ, c)
}

// askFrom has a host ask what the gateway answers.
func (s *natStage) askFrom(from *site.Site, typ string, c connection) (report.Redeemed, error) {
	token, err := from.Stopctl(s.ctx, "request", "-type", typ, c.local.Addr().String(), fmt.Sprint(c.local.Port()), fmt.Sprint(c.remote.Port()))
	if err != nil {
		return report.Redeemed{}, err
	}
	_, r, err := s.b.Traced(s.ctx, token)
	return r, err
}

// relayOn has mallory pass on, on a host behind the gateway, what the attacker says to the gateway's port. What goes on comes from a port that nobody else has: that another
// connection has the same ends is no chance.
func (s *natStage) relayOn(at *site.Site, victim, gateway string) {
	s.t.Helper()
	s.on(at, "mallory", "sh", "-c", fmt.Sprintf("socat -u TCP6-LISTEN:%d,ipv6only=0 - | socat -u - TCP:%s:%d,sourceport=%d", s.port, victim, victimPort, s.port+2000))
	s.must(at.Host.WaitListen(s.ctx, s.port))
	s.send(s.open("socat", "-", fmt.Sprintf("TCP:%s:%d", gateway, s.port)), s.word)
}

// inner is a host's own connection with the victim.
func (s *natStage) inner(at *site.Site) connection {
	s.t.Helper()
	return s.one(at, "connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
}

// passedOn checks that a gateway says for which machine it passes a connection on, that nobody of its own has it, and that it asked that
// machine and nobody else. It returns what the machine saved.
func (s *natStage) passedOn(r report.Redeemed, asked, inner connection, d host.Direction, at *site.Site) report.Redeemed {
	s.t.Helper()
	f := r.Report.Forwarded
	if f == nil {
		s.t.Fatalf("nothing is passed on:\n%s", report.Text(r.Report))
	}
	want := host.Forwarded{Original: host.Ends{Local: inner.local, Remote: inner.remote}, Translated: host.Ends{Local: asked.local, Remote: asked.remote}, Direction: d}
	if f.Original != want.Original || f.Translated != want.Translated || f.Direction != d {
		s.t.Errorf("passed on is %+v, want %+v", f, want)
	}
	if r.Report.Connection != nil || len(r.Report.Processes) > 0 {
		s.t.Errorf("an owner is invented:\n%s", report.Text(r.Report))
	}
	s.named(r, connection{local: inner.remote, remote: inner.local})
	m := s.previousToken(at, r)
	q := m.Report.Request
	if q.Local != inner.local || q.Remote != inner.remote || q.Type != r.Report.Request.Type || q.SID != r.Report.Request.SID {
		s.t.Errorf("%s was asked %+v about %v", at.Host.Name, q, inner)
	}
	return m
}

// answers checks how many answers each host gave.
func (s *natStage) answers(before map[string]int, want map[string]int) {
	s.t.Helper()
	if d := cmp.Diff(want, s.since(before)); d != "" {
		s.t.Errorf("answers by host (-want +got):\n%s", d)
	}
}

// The stepping stone is behind a gateway: it is found, and the attacker by it, in whichever form it is asked about. Once his host
// cannot be reached any more nobody is found in his place.
func TestBehindNAT(t *testing.T) {
	for _, tt := range []struct {
		name, typ, victim, gateway string
		linked                     bool
	}{
		{"IPv4", "SV_REC", "192.0.2.3", "192.0.2.2", true},
		{"IPv6", "SV_REC", "[2001:db8::3]", "[2001:db8::2]", true},
		{"ID_REC", "ID_REC", "192.0.2.3", "192.0.2.2", true},
		{"unlinked", "SV_REC", "192.0.2.3", "192.0.2.2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newNATStage(t)
			out := s.intrude(func() { s.relayOn(s.e, tt.victim, tt.gateway) })
			inner := s.inner(s.e)
			in := s.one(s.e, "connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
			if !tt.linked {
				s.unlink()
			}
			before := s.answered()
			r := s.asked(tt.typ, out, true)
			s.passedOn(r, out, inner, host.Outbound, s.e)
			_, m, err := s.e.Traced(s.ctx, r.Traceback[0].Token)
			s.must(err)
			if tt.typ == "SV_REC" {
				s.inBetweenOn(s.e, m.Report, inner, "sh", "socat", "socat")
			}
			s.named(m, in)
			path := fmt.Sprintf("e (%s) -> b (%s) -> %s\n", inner.local.Addr(), out.local.Addr(), out.remote.Addr())
			if !tt.linked {
				s.answers(before, map[string]int{"b": 1, "e": 1})
				s.draws([]report.Redeemed{r, m}, fmt.Sprintf("%s -> %s", in.remote.Addr(), path), "missing")
				return
			}
			s.answers(before, map[string]int{"b": 1, "e": 1, "a": 1})
			s.draws([]report.Redeemed{r, m, s.previousToken(s.a, m)}, fmt.Sprintf("a (%s) -> %s", in.remote.Addr(), path), "nat ")
		})
	}
}

// Questions that are not recursive go to the machine that has the connection, and no further.
func TestBehindNATNotRecursive(t *testing.T) {
	for _, typ := range []string{"ID", "SV"} {
		t.Run(typ, func(t *testing.T) {
			s := newNATStage(t)
			if typ == s.toldBy { // what was asked is not asked again in a while
				s.toldBy = "SV"
			}
			out := s.intrude(func() { s.relayOn(s.e, "192.0.2.3", "192.0.2.2") })
			before := s.answered()
			r := s.asked(typ, out, true)
			m := s.passedOn(r, out, s.inner(s.e), host.Outbound, s.e)
			if m.Report.Connection == nil || int(m.Report.Connection.UID) != users["mallory"] {
				t.Errorf("e saved\n%s", report.Text(m.Report))
			}
			s.answers(before, map[string]int{"b": 1, "e": 1})
		})
	}
}

// The machine behind the gateway runs an ident daemon that knows nothing of STOP, but that the gateway is one.
func TestBehindNATOldIdent(t *testing.T) {
	s := newNATStage(t)
	s.must(s.e.Daemon.Stop(s.ctx))
	t.Cleanup(func() {
		if err := s.e.Run(context.Background()); err != nil {
			t.Error(err)
		}
	})
	d := s.on(s.e, "root", "oidentd", "-i", "-u", "0", "-g", "0", "-P", "10.0.0.1")
	t.Cleanup(func() { s.stop(d) })
	s.must(s.e.Host.WaitListen(s.ctx, 113))
	out := s.intrude(func() { s.relayOn(s.e, "192.0.2.3", "192.0.2.2") })
	inner := s.inner(s.e)
	before := s.answered()
	r := s.asked("SV_REC", out, true)
	s.named(r, connection{local: inner.remote, remote: inner.local})
	if a := r.Traceback[0]; a.Kind != "legacy" || !strings.HasSuffix(a.Reply, "mallory") || a.Token != "" {
		t.Errorf("e was asked and answered %+v", a)
	}
	s.answers(before, map[string]int{"b": 1})
	s.draws([]report.Redeemed{r}, fmt.Sprintf("%s -> b (%s) -> %s\n", inner.local.Addr(), out.local.Addr(), out.remote.Addr()), "mallory")
}

// A gateway is behind another one.
func TestNestedNAT(t *testing.T) {
	s := newNATStage(t)
	out := s.intrude(func() {
		s.must(run(s.ctx, s.b.Host, fmt.Sprintf("nft insert rule inet gateway pre ip daddr 192.0.2.2 tcp dport %d dnat ip to 10.0.0.9", s.port)))
		s.relayOn(s.n, "192.0.2.3", "192.0.2.2")
	})
	inner := s.inner(s.n)
	in := s.one(s.n, "connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
	before := s.answered()
	r := s.asked("SV_REC", out, true)
	between := connection{local: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.9"), inner.local.Port()), remote: inner.remote}
	if f := r.Report.Forwarded; f != nil { // the port that the inner gateway chose
		between.local = netip.AddrPortFrom(between.local.Addr(), f.Original.Local.Port())
	}
	s.passedOn(r, out, between, host.Outbound, s.r)
	_, second, err := s.r.Traced(s.ctx, r.Traceback[0].Token)
	s.must(err)
	s.passedOn(second, between, inner, host.Outbound, s.n)
	_, m, err := s.n.Traced(s.ctx, second.Traceback[0].Token)
	s.must(err)
	s.inBetweenOn(s.n, m.Report, inner, "sh", "socat", "socat")
	s.named(m, in)
	s.answers(before, map[string]int{"b": 1, "r": 1, "n": 1, "a": 1})
	s.draws([]report.Redeemed{r, second, m, s.previousToken(s.a, m)},
		fmt.Sprintf("a (%s) -> n (10.1.0.7) -> r (10.0.0.9) -> b (%s) -> %s\n", in.remote.Addr(), out.local.Addr(), out.remote.Addr()), "nat ")
}

// Somebody who may ask on behalf of others asks about a connection that the other end has opened, to a port that is passed on. Whoever
// opened it is not told who is there.
func TestPortForward(t *testing.T) {
	s := newNATStage(t)
	s.on(s.e, "www", "socat", "-u", fmt.Sprintf("TCP-LISTEN:%d", s.port), "OPEN:/dev/null")
	s.must(s.e.Host.WaitListen(s.ctx, s.port))
	s.send(s.open("nc.traditional", "192.0.2.2", fmt.Sprint(s.port)), s.word)
	inner := s.one(s.e, "connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
	asked := connection{local: netip.AddrPortFrom(s.b.Host.Addr(), s.port), remote: inner.remote}
	// What e says of it leads back to the attacker, who is asked about the same ports.
	ports := []string{"192.0.2.2", fmt.Sprint(s.port), fmt.Sprint(inner.remote.Port())}
	before := s.answered()
	if out, err := s.a.Stopctl(s.ctx, append([]string{"request", "-type", "SV"}, ports...)...); err == nil || !strings.Contains(err.Error(), "NO-USER") {
		t.Errorf("whoever opened it is answered %q, %v", out, err)
	}
	var r report.Redeemed
	s.wait("wait for a report that was made in time", func() (bool, error) {
		token, err := s.g.Stopctl(s.ctx, append([]string{"request", "-type", "SV_REC", "-for", "192.0.2.1"}, ports...)...)
		s.must(err)
		_, r, err = s.b.Traced(s.ctx, token)
		return err == nil && late(r, true) == "", err
	})
	m := s.passedOn(r, asked, inner, host.Inbound, s.e)
	c := m.Report.Connection
	if c == nil || c.Direction != host.Inbound || !slices.Equal(c.Owners, inner.pids) || !m.Report.Request.OnBehalf {
		t.Errorf("e saved\n%s", report.Text(m.Report))
	}
	_, m, err := s.e.Traced(s.ctx, r.Traceback[0].Token)
	s.must(err)
	s.named(m, inner)
	s.answers(before, map[string]int{"b": 1, "e": 1, "a": 1})
}

// The port that is passed on is another one within, so that the attacker's host knows no connection by that. What machines within ask others,
// the gateway's rules have the gateway answer, which knows both.
func TestTranslatedPort(t *testing.T) {
	const rules = `nft insert rule inet gateway pre ip daddr 192.0.2.2 tcp dport %d dnat ip to 10.0.0.7:%d
nft insert rule inet gateway pre ip saddr 10.0.0.0/24 ip daddr 192.0.2.0/24 ip daddr != 192.0.2.2 tcp dport 113 redirect`
	for _, tt := range []struct{ name, victim, gateway, rules string }{
		{"IPv4", "192.0.2.3", "192.0.2.2", rules},
		{"closed", "192.0.2.3", "192.0.2.2", rules},
		{"IPv6", "[2001:db8::3]", "[2001:db8::2]", `nft insert rule inet gateway pre ip6 daddr 2001:db8::2 tcp dport %d dnat ip6 to [fd00::7]:%d
nft insert rule inet gateway pre ip6 saddr fd00::/64 ip6 daddr 2001:db8::/64 ip6 daddr != 2001:db8::2 tcp dport 113 redirect`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newNATStage(t)
			inside := s.port + 1
			t.Cleanup(func() { // the table, as it was
				s.cleanly("sh", "-ec", "nft delete table inet gateway; nft -f /etc/nftables.gateway")
			})
			out := s.intrude(func() {
				s.must(run(s.ctx, s.b.Host, fmt.Sprintf(tt.rules, s.port, inside)))
				s.on(s.e, "mallory", "sh", "-c", fmt.Sprintf("socat -u TCP6-LISTEN:%d,ipv6only=0 - | socat -u - TCP:%s:%d,sourceport=%d", inside, tt.victim, victimPort, s.port+2000))
				s.must(s.e.Host.WaitListen(s.ctx, inside))
				s.send(s.open("socat", "-", fmt.Sprintf("TCP:%s:%d", tt.gateway, s.port)), s.word)
			})
			inner := s.inner(s.e)
			in := s.one(s.e, "connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
			there := s.one(s.a, "connection with the gateway", func(c connection) bool { return s.of(s.b, c.remote.Addr()) && c.remote.Port() == s.port })
			if tt.name == "closed" {
				s.killOn(s.e, out)
				s.ended(s.e, connection{local: in.remote, remote: in.local})
			}
			before := s.answered()
			ask := func() report.Redeemed { return s.asked("SV_REC", out, true) }
			if tt.name == "closed" {
				ask = func() report.Redeemed { return s.askedOver("SV_REC", out) }
			}
			r := ask()
			s.passedOn(r, out, inner, host.Outbound, s.e)
			_, m, err := s.e.Traced(s.ctx, r.Traceback[0].Token)
			s.must(err)
			s.named(m, in)
			// What e believes to be the attacker's answer is the gateway's.
			if m.Traceback[0].Kind != "token" {
				t.Fatalf("e has of it %+v", m.Traceback[0])
			}
			_, second, err := s.b.Traced(s.ctx, m.Traceback[0].Token)
			s.must(err)
			a := s.passedOn(second, connection{local: in.remote, remote: in.local}, there, host.Outbound, s.a)
			for _, x := range []report.Redeemed{r, second} {
				if x.Report.Forwarded.Removed.IsZero() == (tt.name == "closed") {
					t.Errorf("passed on is %+v", x.Report.Forwarded)
				}
			}
			if a.Report.Connection == nil || int(a.Report.Connection.UID) != users["mallory"] || a.Report.Request.OnBehalf {
				t.Errorf("a saved\n%s", report.Text(a.Report))
			}
			s.answers(before, map[string]int{"b": 2, "e": 1, "a": 1})
			c := chain.Build(chain.Of(r, m, second, a))
			for _, x := range c.Contradictions {
				t.Errorf("honest hosts contradict each other: %+v", x)
			}
			if text, want := chain.Text(c), fmt.Sprintf("a (%s) -> b (%s) -> e (%s) -> b (%[2]s) -> %[4]s\n", there.local.Addr(), out.local.Addr(), inner.local.Addr(), out.remote.Addr()); !strings.HasPrefix(text, want) {
				t.Errorf("the chain is not %q:\n%s", want, text)
			}
		})
	}
}

// From within to a port of the gateway that is passed on to another machine within, and from there to the victim: the gateway is met twice.
func TestHairpinNAT(t *testing.T) {
	s := newNATStage(t)
	var session *netlab.Session
	out := s.intrude(func() {
		s.on(s.e, "mallory", "sh", "-c", fmt.Sprintf("socat -u TCP-LISTEN:%d - | socat -u - TCP:192.0.2.3:%d", s.port, victimPort))
		s.must(s.e.Host.WaitListen(s.ctx, s.port))
		session = s.openOn(s.f, "nc.traditional", "192.0.2.2", fmt.Sprint(s.port))
		s.send(session, s.word)
	})
	inner := s.inner(s.e)
	in := s.one(s.e, "connection with the gateway", func(c connection) bool { return c.local.Port() == s.port })
	first := s.one(s.f, "connection with the gateway", func(c connection) bool { return c.remote.Port() == s.port })
	before := s.answered()
	r := s.asked("SV_REC", out, true)
	s.passedOn(r, out, inner, host.Outbound, s.e)
	_, m, err := s.e.Traced(s.ctx, r.Traceback[0].Token)
	s.must(err)
	if in.remote.Addr() != netip.MustParseAddr("10.0.0.1") {
		t.Fatalf("e sees %v", in)
	}
	s.named(m, in)
	_, second, err := s.b.Traced(s.ctx, m.Traceback[0].Token)
	s.must(err)
	last := s.passedOn(second, connection{local: in.remote, remote: in.local}, first, host.Outbound, s.f)
	if last.Report.Request.OnBehalf || last.Report.Connection == nil || !slices.Equal(last.Report.Connection.Owners, first.pids) {
		t.Errorf("f saved\n%s", report.Text(last.Report))
	}
	s.answers(before, map[string]int{"b": 2, "e": 1, "f": 1})
}

// killOn ends mallory's processes on a host, and waits until a connection with the victim is not tracked by the gateway any more. It returns what the gateway
// answers then.
func (s *natStage) killOn(at *site.Site, out connection) report.Redeemed {
	s.t.Helper()
	_, err := at.Host.Run(s.ctx, "pkill", "-KILL", "-U", "mallory") // one may end by another's end
	s.must(err)
	return s.ended(s.c, out)
}

// ended waits until a connection is neither there nor tracked any more, by what the gateway answers to a host.
func (s *natStage) ended(asker *site.Site, c connection) (r report.Redeemed) {
	s.t.Helper()
	s.wait("wait until the connection is not tracked", func() (bool, error) {
		var err error
		if r, err = s.askFrom(asker, "SV", c); err != nil || late(r, true) != "" {
			return false, err
		}
		owned := r.Report.Connection != nil && r.Report.Connection.Closed.IsZero()
		tracked := r.Report.Forwarded != nil && r.Report.Forwarded.Removed.IsZero()
		return !owned && !tracked, nil
	})
	return r
}

// A connection that has ended is answered for. Where another machine has the same ends then, that one is meant; where neither
// has them any more, none is asked.
func TestClosedBehindNAT(t *testing.T) {
	s := newNATStage(t)
	out := s.intrude(func() { s.relayOn(s.e, "192.0.2.3", "192.0.2.2") })
	inner := s.inner(s.e)
	r := s.killOn(s.e, out)
	s.passedOn(r, out, inner, host.Outbound, s.e)
	first := *r.Report.Forwarded
	if first.Removed.Before(first.Opened) || first.Removed.After(r.Report.Request.Time.Add(stageLimit)) {
		t.Errorf("passed on is %+v", first)
	}

	// An innocent's connection, with the very same ends.
	again := s.intrude(func() {
		s.word = "word-of-somebody-else"
		s.on(s.f, "mallory", "socat", "-u", "SYSTEM:echo "+s.word+"; exec tail -f /dev/null", fmt.Sprintf("TCP:192.0.2.3:%d,sourceport=%d,reuseaddr", victimPort, out.local.Port()))
	})
	if again.local != out.local || again.remote != out.remote {
		t.Fatalf("the ends are %v, not %v", again, out)
	}
	before := s.answered()
	r = s.asked("SV_REC", out, true)
	theirs := s.one(s.f, "connection by that port", func(c connection) bool {
		return c.local.Port() == out.local.Port() && c.remote.Port() == victimPort
	})
	s.passedOn(r, out, theirs, host.Outbound, s.f)
	if !hasGap(r.Report.Gaps, first.String()) {
		t.Errorf("gaps are %v, without %v", r.Report.Gaps, first)
	}
	s.answers(before, map[string]int{"b": 1, "f": 1})

	r = s.killOn(s.f, out)
	if r.Report.Forwarded != nil || len(r.Report.Previous)+len(r.Traceback) > 0 {
		t.Errorf("one of two machines is meant:\n%s", report.Text(r.Report))
	}
	if !hasGap(r.Report.Gaps, first.String()) || !hasGap(r.Report.Gaps, theirs.local.String()) || !hasGap(r.Report.Gaps, "which of them is meant cannot be told") {
		t.Errorf("gaps are %v", r.Report.Gaps)
	}
}

// The gateway's own user had the same ends a while ago, and so had a machine behind it: none is asked.
func TestClosedBehindNATAndOnGateway(t *testing.T) {
	s := newNATStage(t)
	out := s.intrude(func() { s.relayOn(s.e, "192.0.2.3", "192.0.2.2") })
	inner := s.inner(s.e)
	s.killOn(s.e, out)
	s.word = "word-of-somebody-else"
	s.on(s.b, "mallory", "socat", "-u", "SYSTEM:echo "+s.word+"; exec tail -f /dev/null", fmt.Sprintf("TCP:192.0.2.3:%d,sourceport=%d,reuseaddr", victimPort, out.local.Port()))
	s.heard(s.c)
	before := s.answered()
	r := s.asked("SV_REC", out, true)
	if c := r.Report.Connection; c == nil || int(c.UID) != users["mallory"] || r.Report.Forwarded != nil {
		t.Errorf("while the gateway has it:\n%s", report.Text(r.Report))
	}
	s.answers(before, map[string]int{"b": 1})
	r = s.killOn(s.b, out)
	if r.Report.Forwarded != nil || len(r.Report.Previous)+len(r.Traceback) > 0 || len(r.Report.Processes) > 0 {
		t.Errorf("one of the two is meant:\n%s", report.Text(r.Report))
	}
	if !hasGap(r.Report.Gaps, inner.local.String()) || !hasGap(r.Report.Gaps, "the host had it itself") || !hasGap(r.Report.Gaps, "which of them is meant cannot be told") {
		t.Errorf("gaps are %v", r.Report.Gaps)
	}
}

// inBetweenOn checks that a host's report has the intruder's processes, and nobody else's.
func (s *natStage) inBetweenOn(at *site.Site, r report.Report, inner connection, names ...string) {
	s.t.Helper()
	if r.Connection == nil || !slices.Equal(r.Connection.Owners, inner.pids) {
		s.t.Fatalf("owners are not %v:\n%s", inner.pids, report.Text(r))
	}
	var got []string
	for _, p := range r.Processes {
		if p.RUID != nil && int(*p.RUID) == users["mallory"] {
			got = append(got, p.Name)
		} else if p.RUID != nil && *p.RUID != 0 {
			s.t.Errorf("process %d %q of uid %d has nothing to do with it", p.PID, p.Args, *p.RUID)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		s.t.Errorf("processes on %s are %q, want %q", at.Host.Name, got, names)
	}
}
