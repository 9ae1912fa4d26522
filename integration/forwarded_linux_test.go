package integration

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/report"
)

// The intruder has made b pass a port on to the victim, so that no process of b has the connection. Somebody else's
// connection goes the same way.
func TestForwardedByNAT(t *testing.T) {
	for _, linked := range []bool{true, false} {
		t.Run(map[bool]string{true: "linked", false: "unlinked"}[linked], func(t *testing.T) {
			s := theWorld(t).stage(t)
			t.Cleanup(s.hangUp) // nothing passes the end of a connection on once the rules are gone
			rules := fmt.Sprintf(`table ip forward {
	chain pre { type nat hook prerouting priority dstnat; tcp dport %d dnat to %s:%d; }
	chain post { type nat hook postrouting priority srcnat; ip daddr %[2]s masquerade; }
}
`, s.port, s.c.Host.Addr(), victimPort)
			s.must(s.b.Host.WriteFile("/etc/nftables.test", []byte(rules), 0o600, "root"))
			s.root("nft", "-f", "/etc/nftables.test")
			s.t.Cleanup(func() { s.cleanly("nft", "delete", "table", "ip", "forward") })
			s.root("sysctl", "-w", "net.ipv4.ip_forward=1")
			s.t.Cleanup(func() { s.cleanly("sysctl", "-w", "net.ipv4.ip_forward=0") })

			s.on(s.d, "mallory", "clients", fmt.Sprintf("%s:%d:1:hello", s.b.Host.Addr(), s.port))
			theirs := s.one(s.c, "innocent's connection", func(c connection) bool { return c.local.Port() == victimPort && s.of(s.b, c.remote.Addr()) })
			s.send(s.open("nc.traditional", s.b.Host.Addr().String(), fmt.Sprint(s.port)), s.word)
			s.heard(s.c)
			got := s.one(s.c, "connection", func(c connection) bool {
				return c.local.Port() == victimPort && s.of(s.b, c.remote.Addr()) && c.remote != theirs.remote
			})
			mine := s.one(s.a, "connection", func(c connection) bool { return s.of(s.b, c.remote.Addr()) && c.remote.Port() == s.port })
			if !linked {
				s.unlink()
			}

			before := s.answered()
			out := connection{local: got.remote, remote: got.local}
			r := s.asked("SV_REC", out, linked)
			if r.Report.Connection != nil || len(r.Report.Processes) > 0 {
				t.Errorf("an owner is invented:\n%s", report.Text(r.Report))
			}
			s.named(r, connection{local: mine.remote, remote: mine.local})
			want := map[string]int{"b": 1}
			path := fmt.Sprintf("b (%s) -> %s\n", out.local.Addr(), out.remote.Addr())
			if linked {
				want["a"] = 1
				s.draws([]report.Redeemed{r, s.previousToken(s.a, r)}, fmt.Sprintf("a (%s) -> %s", mine.local.Addr(), path), "opened")
			} else {
				s.draws([]report.Redeemed{r}, fmt.Sprintf("%s -> %s", mine.local.Addr(), path), "missing")
			}
			if d := cmp.Diff(want, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
		})
	}
}
