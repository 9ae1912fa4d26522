package server

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd"
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

// Whom a name is told, and in which words.
func TestNames(t *testing.T) {
	net := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	peers := []Peer{
		{Hosts: net("127.0.0.10/32"), System: SystemOther, Names: true}, {Hosts: net("127.0.0.11/32"), System: SystemUnix, Names: true},
		{Hosts: net("127.0.0.12/32"), System: SystemUnix}, {Hosts: net("127.0.0.2/32"), System: SystemOther, Names: true},
	}
	const token, never, listed, unless = "TOKEN", stop.NameNever, stop.NameIfListed, stop.NameUnlessHidden
	for _, c := range []struct {
		name, from, line string
		optIn            bool
		asked            stop.Naming
		want             string
	}{
		{"nobody in particular", "127.0.0.9", "1 , 2", false, never, "OTHER : " + token},
		{"peer", "127.0.0.10", "1 , 2", false, unless, "OTHER : alice"},
		{"peer, the type given", "127.0.0.10", "1 , 2 : ID", false, unless, "OTHER : alice"},
		{"peer that wants UNIX", "127.0.0.11", "1 , 2", true, unless, "UNIX : alice"},
		{"a token for who wants UNIX", "127.0.0.12", "1 , 2", false, never, "UNIX : " + token},
		{"opt-in", "127.0.0.9", "1 , 2", true, listed, "OTHER : alice"},
		{"opt-in for who wants UNIX", "127.0.0.12", "1 , 2", true, listed, "UNIX : alice"},
		{"ID_REC", "127.0.0.11", "1 , 2 : ID_REC : 7", true, never, "UNIX : " + token},
		{"SV", "127.0.0.10", "1 , 2 : SV", true, never, "OTHER : " + token},
		{"SV_REC", "127.0.0.10", "1 , 2 : SV_REC : 7", true, never, "OTHER : " + token},
		{"on behalf of another host", "127.0.0.2", "1 , 2 : ID : 127.0.0.10", true, never, "OTHER : " + token},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.Peers, cfg.OptIn = peers, c.optIn
			// What is not asked for is not told, even if it is there.
			f := &fake{name: func(stop.Question) string { return "alice" }}
			s := newServer(f, cfg)
			got := once(t, s, c.from, c.line)
			s.Wait(t.Context())
			if len(f.examined) != 1 || f.examined[0].Naming != c.asked {
				t.Errorf("asked were %+v", f.examined)
			}
			_, user, _ := strings.Cut(strings.TrimSpace(got), " : USERID : ")
			system, id, _ := strings.Cut(user, " : ")
			if _, err := stop.ParseToken(id); err == nil {
				id = token
			}
			if got := system + " : " + id; got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
			if n := s.Counters.Names.Load(); n != uint64(strings.Count(c.want, "alice")) || s.Counters.Tokens.Load() != 1 {
				t.Errorf("%d names are counted", n)
			}
		})
	}
}

// A name that would not arrive as it is, or would be taken for a token, is not sent. Nor is one where it is not known.
func TestSendable(t *testing.T) {
	long := strings.Repeat("x", 512)
	for name, want := range map[string]bool{
		"alice": true, "Domain Users\\al:ice": true, "a": true, long: true, "s" + strings.Repeat("b", 52): true,
		"": false, " alice": false, "alice ": false, "al\nice": false, "al\x00ice": false, "al\rice": false, "j\u00fcrgen": false, "al\x7fice": false,
		"\tx": false, long + "x": false, stop.TokenOf(nil).String(): false,
	} {
		if got := sendable(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
		cfg := testConfig()
		cfg.OptIn = true
		s := newServer(&fake{unread: true, name: func(stop.Question) string { return name }}, cfg)
		line := once(t, s, "127.0.0.9", "1 , 2")
		if got := line == "1 , 2 : USERID : OTHER : "+name; got != want {
			t.Errorf("%q is answered %q", name, line)
		}
		if n := s.reached.userFiles.Load(); n != 1 {
			t.Errorf("files that were not read are counted %d times", n)
		}
	}
}

// What is answered without reading a user's files takes as long as if they had been read.
func TestGridOfNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Slots, cfg.Errors = testSlots, ErrorsToken
		cfg.Peers = []Peer{{Hosts: []netip.Prefix{netip.MustParsePrefix("127.0.0.10/32")}, System: SystemOther, Names: true}}
		absent := false
		s := newServer(&fake{
			find: func(stop.Question) error {
				if absent {
					return stop.ErrNoUser
				}
				return nil
			},
			examine: func(q stop.Question) error {
				if q.Naming != stop.NameNever {
					time.Sleep(12 * time.Millisecond)
				}
				return nil
			}}, cfg)
		for range 2 {
			for from, want := range map[string]time.Duration{"127.0.0.9": 5 * time.Millisecond, "127.0.0.10": 15 * time.Millisecond} {
				start := time.Now()
				once(t, s, from, "1 , 2")
				if got := time.Since(start); got != want {
					t.Errorf("%s, absent %t: after %s, not %s", from, absent, got, want)
				}
			}
			absent = true
		}
		s.Wait(t.Context())
	})
}
