package server

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPeer(t *testing.T) {
	p := func(pin string, hosts ...string) Peer {
		x := Peer{System: SystemUnix, Names: true, Pin: pin}
		for _, h := range hosts {
			x.Hosts = append(x.Hosts, netip.MustParsePrefix(h))
		}
		return x
	}
	c := &Config{Peers: []Peer{
		p("site", "192.0.2.0/24", "2001:db8::/32", "fe80::/10"), p("host", "192.0.2.9/32", "2001:db8::9/128"), p("half", "192.0.2.0/25", "198.51.100.0/24"),
	}}
	for addr, want := range map[string]string{
		"192.0.2.200": "site", "192.0.2.9": "host", "192.0.2.8": "half", "::ffff:192.0.2.9": "host", "198.51.100.1": "half",
		"2001:db8::9": "host", "2001:db8::a": "site", "fe80::1%eth0": "site",
	} {
		if got := c.peer(netip.MustParseAddr(addr)).Pin; got != want {
			t.Errorf("%s: %q, not %q", addr, got, want)
		}
	}
	for _, addr := range []string{"203.0.113.1", "2001:db9::1", "::1"} {
		if d := cmp.Diff(Peer{System: SystemOther}, c.peer(netip.MustParseAddr(addr)), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Errorf("%s: %s", addr, d)
		}
	}
}
