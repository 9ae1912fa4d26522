package integration

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// Ends of the intruder's container on b, and of the port by which b publishes it.
const (
	insideAddr = "10.0.0.2"
	insideIPv6 = "fd00::2"
	published  = 2222
)

const (
	dockerRules = `table inet nat {
	chain pre {
		type nat hook prerouting priority dstnat;
		fib daddr type local meta nfproto ipv4 tcp dport 2222 dnat ip to 10.0.0.2:22
		fib daddr type local meta nfproto ipv6 tcp dport 2222 dnat ip6 to [fd00::2]:22
		fib daddr type local meta nfproto ipv4 tcp dport 8081 dnat ip to 10.0.0.3:80
	}
	chain post {
		type nat hook postrouting priority srcnat;
		oifname "eth0" masquerade fully-random
	}
}
`
	zoneRules = `table inet zones {
	chain pre { type filter hook prerouting priority raw; ct zone set 7; }
	chain out { type filter hook output priority raw; ct zone set 7; }
}
`
)

// containers makes two containers on b behind one bridge and NAT, as container engines do. The first, which is
// returned, is the intruder's; the other publishes a service with clients, where the rules say so.
func (s *stage) containers(rules string) space {
	s.t.Helper()
	return s.containersOn(s.bridged, rules)
}

// containersOn is containers on whichever link.
func (s *stage) containersOn(link func(mine, web space), rules string) space {
	s.t.Helper()
	s.t.Cleanup(s.hangUp)
	mine, web := s.space("mine"), s.space("web")
	link(mine, web)
	mine.run("ip", "route", "add", "default", "via", "10.0.0.1")
	mine.run("ip", "route", "add", "default", "via", "fd00::1")
	web.run("ip", "route", "add", "default", "via", "10.0.0.1")
	s.root("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	s.must(s.b.Host.WriteFile("/etc/nftables.test", []byte(rules), 0o600, "root"))
	s.root("nft", "-f", "/etc/nftables.test")
	s.t.Cleanup(func() { s.cleanly("nft", "flush", "ruleset") })
	if strings.Contains(rules, "8081") {
		s.publish(web)
	}
	return mine
}

// hangUp ends the victim's connections: the ends in containers that are gone did not.
func (s *stage) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
	defer cancel()
	err := netlab.WaitFor(ctx, func() (bool, error) {
		cs, err := connections(ctx, s.c.Host)
		cs = slices.DeleteFunc(cs, func(c connection) bool { return c.local.Port() != victimPort })
		for _, c := range cs {
			// One that has ended since is no error: the next look tells.
			_ = s.c.Host.Command(ctx, "kill", append([]string{"-KILL"}, decimal(c.pids)...)...).Run()
		}
		return len(cs) == 0, err
	})
	if err != nil {
		s.t.Errorf("end the victim's connections: %v", err)
	}
}

// publish has a container serve clients by b's port 8081.
func (s *stage) publish(web space) {
	s.t.Helper()
	web.on("web", "python3", "-m", "http.server", "--protocol", "HTTP/1.1", "80")
	web.listening(80)
	clients := s.on(s.d, "dave", "clients", `b:8081:3:GET / HTTP/1.1\r\nHost: b\r\n\r\n`)
	s.t.Cleanup(func() { s.stop(clients) })
	s.wait("wait for the clients of the other container", func() (bool, error) {
		cs, err := web.connections()
		return len(cs) == 3, err
	})
}

// sshd lets people log in to the container.
func (n space) sshd() {
	n.s.t.Helper()
	argv := n.enter("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/netlab_sshd_config", "-o", "PidFile=none")
	d := n.s.on(n.s.b, "root", argv[0], argv[1:]...)
	n.s.t.Cleanup(func() { n.s.stop(d) })
	n.listening(22)
}

// twin makes two namespaces, apart from everything else, with the addresses of the intruder's container and of
// those that it speaks with, and in them a service's connections with the very same ends.
func (s *stage) twin(cs ...connection) {
	s.t.Helper()
	near, far := s.space("twin"), s.space("twinfar")
	s.joined(far, "vtwin", near, insideAddr+"/24")
	far.run("ip", "link", "set", "vtwin", "up")
	far.run("ip", "address", "add", "10.0.0.1/24", "dev", "vtwin")
	near.run("ip", "route", "add", "default", "via", "10.0.0.1")
	for _, c := range cs {
		from, to, at, there := c.local, c.remote, near, far
		if c.local.Port() == 22 {
			from, to, at, there = c.remote, c.local, far, near
		}
		far.run("ip", "address", "replace", c.remote.Addr().String()+"/32", "dev", "lo")
		there.on("service", "socat", "-u", fmt.Sprintf("TCP-LISTEN:%d,bind=%s", to.Port(), to.Addr()), "OPEN:/dev/null")
		there.listening(to.Port())
		at.on("service", "socat", "-u", "EXEC:tail -f /dev/null", fmt.Sprintf("TCP:%s,bind=%s", to, from))
		at.one("connection of the twin", func(x connection) bool { return x.local == from && x.remote == to })
	}
}

// outside is the victim's view of the one connection that b has with it, seen from b.
func (s *stage) outside() connection {
	s.t.Helper()
	c := s.one(s.c, "connection with b", func(c connection) bool { return s.of(s.b, c.remote.Addr()) && c.local.Port() == victimPort })
	return connection{local: c.remote, remote: c.local}
}

// forwarded is the trail through a container: the ends are those that others see.
func (n space) forwarded(port uint16, names ...string) trail {
	n.s.t.Helper()
	n.s.heard(n.s.c)
	isIn := func(c connection) bool { return n.s.of(n.s.a, c.remote.Addr()) }
	in := n.one("connection with the attacker", isIn)
	in.local = netip.AddrPortFrom(n.s.b.Host.Addr(), port)
	if in.remote.Addr().Is6() {
		in.local = netip.AddrPortFrom(n.s.b.Host.Addrs[1].Addr(), port)
	}
	out := n.s.outside()
	out.pids = n.one("connection with the victim", func(c connection) bool { return n.s.of(n.s.c, c.remote.Addr()) }).pids
	return trail{in: in, out: out, names: names}
}

// login logs the attacker in to the container, and goes on from there to the victim.
func (s *stage) login(mine space, command string) {
	s.t.Helper()
	mine.sshd()
	session := s.open("ssh", "-4", "-tt", "-o", "HostKeyAlias=b", "-p", fmt.Sprint(published), "b")
	s.send(session, "echo lo''gged in")
	_, err := session.Expect(s.ctx, "logged in")
	s.must(err)
	s.send(session, command)
	mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
	s.send(session, s.word)
	s.heard(s.c)
}

func TestContainer(t *testing.T) {
	netcat := fmt.Sprintf("exec nc.traditional 192.0.2.3 %d", victimPort)
	names := []string{"nc.traditional", "sshd", "sshd"}
	t.Run("ssh in, netcat out", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			mine := s.containers(dockerRules)
			s.login(mine, netcat)
			in := mine.one("connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
			out := mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
			s.twin(in, out)
			return mine.forwarded(published, names...)
		})
	})
	t.Run("in a zone of connection tracking", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			mine := s.containers(dockerRules + zoneRules)
			s.login(mine, netcat)
			return mine.forwarded(published, names...)
		})
	})
	t.Run("IPv6", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			mine := s.containers(dockerRules)
			mine.on("mallory", "socat", "TCP6-LISTEN:22", fmt.Sprintf("TCP6:[2001:db8::3]:%d", victimPort))
			mine.listening(22)
			s.send(s.open("socat", "-", fmt.Sprintf("TCP6:[2001:db8::2]:%d", published)), s.word)
			return mine.forwarded(published, "socat")
		})
	})
	// The first container has one of its own, behind a second translation.
	t.Run("nested", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			mine := s.containers(dockerRules)
			inner := s.space("inner")
			s.joined(mine, "vinner", inner, "10.1.0.2/24")
			mine.run("ip", "address", "add", "10.1.0.1/24", "dev", "vinner")
			mine.run("ip", "link", "set", "vinner", "up")
			inner.run("ip", "route", "add", "default", "via", "10.1.0.1")
			rules := strings.ReplaceAll(strings.ReplaceAll(dockerRules, "10.0.0.2:22", "10.1.0.2:23"), "dport 2222", "dport 22")
			s.must(s.b.Host.WriteFile("/etc/nftables.test", []byte(rules), 0o600, "root"))
			mine.run("nft", "-f", "/etc/nftables.test")
			inner.on("mallory", "sh", "-c", fmt.Sprintf("nc.traditional -l -p 23 | nc.traditional 192.0.2.3 %d", victimPort))
			inner.listening(23)
			s.send(s.open("nc.traditional", "192.0.2.2", fmt.Sprint(published)), s.word)
			return inner.forwarded(published, "sh", "nc.traditional", "nc.traditional")
		})
	})
	// A program on the host itself passes connections on to the container.
	t.Run("through a proxy on the host", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			mine := s.containers(dockerRules)
			mine.on("mallory", "socat", "TCP-LISTEN:24", fmt.Sprintf("TCP:192.0.2.3:%d", victimPort))
			mine.listening(24)
			s.on(s.b, "mallory", "socat", fmt.Sprintf("TCP-LISTEN:%d", s.port), "TCP:10.0.0.2:24")
			s.connect(s.port)
			s.heard(s.c)
			out := s.outside()
			out.pids = mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) }).pids
			return trail{in: s.in(), out: out, names: []string{"socat", "socat"}}
		})
	})
	// From the container back to a port that the host publishes, which is its own.
	t.Run("between two containers", func(t *testing.T) {
		scenario(t, "SV_REC", func(s *stage) trail {
			hairpin := strings.Replace(dockerRules, `oifname "eth0"`, `iifname "ctr0" oifname "ctr0" masquerade`+"\n"+`oifname "eth0"`, 1)
			mine := s.containers(hairpin)
			other := s.space("other")
			s.joined(space{}, "vother", other, "10.0.0.4/24")
			s.root("ip", "link", "set", "vother", "master", "ctr0", "up")
			other.run("ip", "route", "add", "default", "via", "10.0.0.1")
			mine.on("mallory", "socat", "TCP-LISTEN:22", fmt.Sprintf("TCP:192.0.2.3:%d", victimPort))
			mine.listening(22)
			s.root("nft", "insert", "rule", "inet", "nat", "pre", "ip", "daddr", "192.0.2.2", "tcp", "dport", fmt.Sprint(s.port), "dnat", "ip", "to", "10.0.0.4:25")
			other.on("mallory", "socat", "TCP-LISTEN:25", fmt.Sprintf("TCP:192.0.2.2:%d", published))
			other.listening(25)
			s.send(s.open("nc.traditional", "192.0.2.2", fmt.Sprint(s.port)), s.word)
			s.heard(s.c)
			in := other.one("connection with the attacker", func(c connection) bool { return s.of(s.a, c.remote.Addr()) })
			in.local = netip.AddrPortFrom(s.b.Host.Addr(), s.port)
			out := s.outside()
			out.pids = mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) }).pids
			return trail{in: in, out: out, names: []string{"socat", "socat"}}
		})
	})
}

// The report has the container's own ends beside those that others see.
func TestContainerReport(t *testing.T) {
	s := theWorld(t).stage(t)
	mine := s.containers(dockerRules)
	s.login(mine, fmt.Sprintf("exec nc.traditional 192.0.2.3 %d", victimPort))
	inner := mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
	tr := mine.forwarded(published)
	r := s.asked("SV_REC", tr.out, true)
	c := r.Report.Connection
	if c.NAT == nil || *c.NAT.Original != (host.Ends{Local: inner.local, Remote: inner.remote}) || *c.NAT.Translated != (host.Ends{Local: tr.out.local, Remote: tr.out.remote}) {
		t.Errorf("translation is %+v, want from %v to %v", c.NAT, inner, tr.out)
	}
	for _, p := range r.Report.Previous {
		if !slices.Contains(p.Reasons, trace.ReasonNAT) || !slices.Contains(p.Reasons, trace.ReasonSSHConnection) || !p.Corroborated {
			t.Errorf("candidate is %+v", p)
		}
	}
	if hasGap(r.Report.Gaps, "namespace") {
		t.Errorf("gaps are %v", r.Report.Gaps)
	}
	if !slices.Contains(r.Report.Tool.Sources, "conntrack") {
		t.Errorf("sources are %v", r.Report.Tool.Sources)
	}

	// Who looks into the container sees ends that no other host asks about, and is told which they do.
	s.explained(inner, "that of process ", fmt.Sprintf("Other hosts have it as %s with %s", tr.out.local, tr.out.remote), "answered with a token")
	mine.on("mallory", "socat", "TCP:127.0.0.1:22", "EXEC:tail -f /dev/null")
	s.explained(mine.one("connection within", func(c connection) bool { return c.remote.Addr().IsLoopback() && c.remote.Port() == 22 }), "It does not leave this host")
}

// explained checks what b says of a connection of a container's, by its ends there and by its ports alone.
func (s *stage) explained(c connection, want ...string) {
	s.t.Helper()
	ports := []string{fmt.Sprint(c.local.Port()), fmt.Sprint(c.remote.Port())}
	for _, ends := range [][]string{{c.local.String(), c.remote.String()}, ports} {
		out, err := s.b.Stopctl(s.ctx, append([]string{"explain", "-config", site.Config}, ends...)...)
		s.must(err)
		for _, w := range append([]string{"There is one in another network namespace", c.local.String() + " with " + c.remote.String()}, want...) {
			if !strings.Contains(out, w) {
				s.t.Errorf("explain %v does not say %q:\n%s", ends, w, out)
			}
		}
	}
}

// Something that does not tell translates addresses: no owner is invented, and what was seen is a gap.
func TestHiddenTranslation(t *testing.T) {
	s := theWorld(t).stage(t)
	mine := s.containers("table inet nothing {}\n")
	rules := fmt.Sprintf(`table netdev hidden {
	chain out { type filter hook egress device eth0 priority 0; ip saddr 10.0.0.2 tcp dport %d ip saddr set 192.0.2.2 tcp sport set 999; }
	chain in { type filter hook ingress device eth0 priority 0; ip daddr 192.0.2.2 tcp sport %d tcp dport 999 ip daddr set 10.0.0.2 tcp dport set 5555; }
}
`, victimPort, victimPort)
	s.must(s.b.Host.WriteFile("/etc/nftables.test", []byte(rules), 0o600, "root"))
	s.root("nft", "-f", "/etc/nftables.test")
	mine.on("mallory", "socat", "TCP-LISTEN:22", fmt.Sprintf("TCP:192.0.2.3:%d,sourceport=5555", victimPort))
	mine.listening(22)
	mine.on("mallory", "socat", "-u", "SYSTEM:echo "+s.word+"; exec tail -f /dev/null", "TCP:10.0.0.2:22")
	s.heard(s.c)
	inner := mine.one("connection with the victim", func(c connection) bool { return s.of(s.c, c.remote.Addr()) })
	out := s.outside()
	r := s.asked("SV_REC", out, true)
	if r.Report.Kind != report.KindSV || r.Report.Connection != nil || len(r.Report.Processes)+len(r.Report.Previous) > 0 {
		t.Errorf("an owner is invented:\n%s", report.Text(r.Report))
	}
	if !hasGap(r.Report.Gaps, inner.local.String()+" -> "+inner.remote.String()) {
		t.Errorf("gaps are %v", r.Report.Gaps)
	}
}
