package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// routedRules track what passes b, and publish the other container; the intruder's is routed, and not translated.
const routedRules = `table inet nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		fib daddr type local meta nfproto ipv4 tcp dport 8081 dnat ip to 10.0.0.3:80
	}
}
`

// bridged links containers to a bridge of b.
func (s *stage) bridged(mine, web space) {
	s.t.Helper()
	s.root("ip", "link", "add", "ctr0", "type", "bridge")
	s.t.Cleanup(func() { s.cleanly("ip", "link", "delete", "ctr0") })
	s.gateway("ctr0")
	s.joined(space{}, "vmine", mine, insideAddr+"/24", insideIPv6+"/64")
	s.joined(space{}, "vweb", web, "10.0.0.3/24")
	for _, v := range []string{"vmine", "vweb"} {
		s.root("ip", "link", "set", v, "master", "ctr0", "up")
	}
}

// gateway gives a link of b the address by which containers reach others.
func (s *stage) gateway(link string) {
	s.t.Helper()
	s.root("ip", "address", "add", "10.0.0.1/24", "dev", link)
	s.root("ip", "address", "add", "fd00::1/64", "dev", link, "nodad")
	s.root("ip", "link", "set", link, "up")
}

// upon gives containers, and b itself, a link of a kind each upon b's own link (macvlan).
func (s *stage) upon(kind string) func(mine, web space) {
	return func(mine, web space) {
		s.t.Helper()
		s.root("ip", "link", "add", "link", "eth0", "name", "mv0", "type", kind, "mode", "bridge")
		s.t.Cleanup(func() { s.cleanly("ip", "link", "delete", "mv0") })
		s.gateway("mv0")
		s.linkUpon("eth0", kind, mine, insideAddr+"/24", insideIPv6+"/64")
		s.linkUpon("eth0", kind, web, "10.0.0.3/24")
	}
}

// linkUpon gives a namespace a link upon one of b's.
func (s *stage) linkUpon(under, kind string, n space, addrs ...string) {
	s.t.Helper()
	s.root("ip", "link", "add", "link", under, "name", "eth0", "netns", n.name, "type", kind, "mode", "bridge")
	s.t.Cleanup(func() {
		s.cleanly(n.enter("sh", "-c", "! ip link show eth0 >/dev/null 2>&1 || ip link delete eth0")...)
	})
	n.run("ip", "link", "set", "eth0", "up")
	for _, a := range addrs {
		n.run("ip", "address", "add", a, "dev", "eth0", "nodad")
	}
}

// Containers have links upon the host's, and so has the host, by which they reach it.
func TestMacvlan(t *testing.T) {
	for _, kind := range []string{"macvlan", "macvtap"} {
		t.Run(kind, func(t *testing.T) {
			scenario(t, "SV_REC", func(s *stage) trail {
				mine := s.containersOn(s.upon(kind), dockerRules)
				s.login(mine, fmt.Sprintf("exec nc.traditional 192.0.2.3 %d", victimPort))
				in := mine.one("connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
				out := mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
				s.twin(in, out)
				return mine.forwarded(published, "nc.traditional", "sshd", "sshd")
			})
		})
	}
}

// routed has a site send to the containers of b by b.
func (s *stage) routed(sites ...string) {
	s.t.Helper()
	for _, at := range s.sites() {
		if !slices.Contains(sites, at.Host.Name) {
			continue
		}
		_, err := at.Host.Run(s.ctx, "ip", "route", "add", "10.0.0.0/24", "via", "192.0.2.2")
		s.must(err)
		s.t.Cleanup(func() { s.cleanlyOn(at, "ip", "route", "flush", "10.0.0.0/24") }) // it goes with the link as well
	}
}

// reaches has somebody in the container reach the victim, and returns the victim's view seen from b: by which of its
// addresses b is asked, and the ports.
func (n space) reaches() connection {
	n.s.t.Helper()
	n.s.heard(n.s.c)
	inner := n.one("connection with the victim", func(c connection) bool { return n.s.of(n.s.c, c.remote.Addr()) })
	n.s.one(n.s.c, "connection with the container", func(c connection) bool { return c.remote == inner.local && c.local == inner.remote })
	inner.local = netip.AddrPortFrom(n.s.b.Host.Addr(), inner.local.Port())
	return inner
}

// The container's connections leave by b as they are, and b is asked at its own address.
func TestRoutedContainer(t *testing.T) {
	scenario(t, "SV_REC", func(s *stage) trail {
		mine := s.containersOn(s.bridged, routedRules)
		s.routed("c")
		mine.on("mallory", "socat", "TCP-LISTEN:24", fmt.Sprintf("TCP:192.0.2.3:%d", victimPort))
		mine.listening(24)
		s.on(s.b, "mallory", "socat", fmt.Sprintf("TCP-LISTEN:%d", s.port), "TCP:10.0.0.2:24")
		s.connect(s.port)
		out := mine.reaches()
		s.twin(mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) }))
		return trail{in: s.in(), out: out, names: []string{"socat", "socat"}}
	})
}

// The attacker reaches the container at an address that is not b's own. From there b cannot ask: his host is named,
// and nobody is asked.
func TestOwnAddress(t *testing.T) {
	w := theWorld(t)
	for _, tt := range []struct {
		name, addr, why string
		link            func(s *stage) space
	}{
		{"macvlan", "192.0.2.20", "another network namespace", func(s *stage) space {
			s.t.Cleanup(s.hangUp)
			mine := s.space("mine")
			s.linkUpon("eth0", "macvlan", mine, "192.0.2.20/24")
			mine.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:20") // the same each time: others remember it
			return mine
		}},
		{"routed", insideAddr, "cannot assign requested address", func(s *stage) space {
			s.routed("a", "c")
			return s.containersOn(s.bridged, routedRules)
		}},
	} {
		for _, linked := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: ", linked", false: ", unlinked"}[linked], func(t *testing.T) {
				s := w.stage(t)
				mine := tt.link(s)
				mine.on("mallory", "sh", "-c", fmt.Sprintf("nc.traditional -l -p 22 | nc.traditional 192.0.2.3 %d", victimPort))
				mine.listening(22)
				s.send(s.open("nc.traditional", tt.addr, "22"), s.word)
				out := mine.reaches()
				in := mine.one("connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
				if !linked {
					s.unlink()
				}
				before := s.answered()
				r := s.asked("SV_REC", out, linked)
				s.inBetween(r.Report, trail{in: in, out: out, names: []string{"sh", "nc.traditional", "nc.traditional"}})
				if len(r.Report.Previous) != 1 || r.Report.Previous[0].Remote != in.remote || r.Report.Previous[0].Local != in.local {
					t.Errorf("named are %+v, want %v alone\n%s", r.Report.Previous, in, report.Text(r.Report))
				}
				if len(r.Traceback) != 1 || r.Traceback[0].Asked || !strings.Contains(r.Traceback[0].Error, tt.why) ||
					r.Traceback[0].Previous != (stop.Ends{Remote: in.remote, Local: in.local}) {
					t.Errorf("trace-back is %+v", r.Traceback)
				}
				if n := s.since(before); len(n) != 1 || n["b"] != 1 {
					t.Errorf("answers by host: %v", n)
				}
			})
		}
	}
}
