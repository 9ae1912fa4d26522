package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// The previous host runs an ident daemon that knows nothing of STOP. ident2 and oidentd answer a name whatever
// follows the ports; bidentd refuses what follows and is asked again without it; nullidentd has one name for all, and says the request again before it.
func TestOldIdent(t *testing.T) {
	for _, tt := range []struct {
		name, sent, who string
		start           func(*stage)
	}{
		{"oidentd", "%d , %d : SV_REC : %s", "mallory", func(s *stage) { s.daemonOnA("oidentd", "-i", "-u", "0", "-g", "0") }},
		{"ident2", "%d , %d : SV_REC : %s", "mallory", func(s *stage) { s.fromInetd("root", "ident2", "-i") }},
		{"bidentd", "%d , %d", "mallory", func(s *stage) { s.fromInetd("root", "bidentd") }},
		{"nullidentd", "%d , %d : SV_REC : %s", "nobody-at-all", func(s *stage) { s.fromInetd("nobody", "nullidentd", "nobody-at-all") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			s.must(s.a.Daemon.Stop(s.ctx))
			t.Cleanup(func() {
				if err := s.a.Run(context.Background()); err != nil {
					t.Error(err)
				}
			})
			tt.start(s)
			s.must(s.a.Host.WaitListen(s.ctx, 113))
			s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
			s.connect(s.port)
			tr := s.through("nc.traditional", "nc.traditional")
			before := s.answered()
			r := s.asked("SV_REC", tr.out, true)
			s.inBetween(r.Report, tr)
			s.named(r, tr.in)
			if d := cmp.Diff(map[string]int{"b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
			a := r.Traceback[0]
			ports := []any{tr.in.remote.Port(), tr.in.local.Port(), r.Report.Request.SID}
			sent := fmt.Sprintf(tt.sent, ports[:strings.Count(tt.sent, "%")]...)
			if a.Kind != "legacy" || !strings.HasSuffix(a.Reply, tt.who) || a.Token != "" || a.Request != sent {
				t.Errorf("the attacker's host was asked %q and answered %+v", sent, a)
			}
			s.draws([]report.Redeemed{r}, fmt.Sprintf("%s -> b (%s) -> %s\n", tr.in.remote.Addr(), tr.out.local.Addr(), tr.out.remote.Addr()), tt.who)
		})
	}
}

// daemonOnA starts a daemon on the attacker's host until the stage ends.
func (s *stage) daemonOnA(name string, args ...string) {
	s.t.Helper()
	d := s.on(s.a, "root", name, args...)
	s.t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
}

// fromInetd has inetd start an ident daemon as a user for each question to the attacker's host. Debian lets no two of
// them be installed together, so it is unpacked alone.
func (s *stage) fromInetd(user, name string, args ...string) {
	s.t.Helper()
	dir, err := netlab.Packages(s.ctx, name)
	s.must(err)
	s.must(s.a.Host.Install(filepath.Join(dir, "usr/sbin", name), "/usr/local/sbin/"+name))
	conf := "113 stream tcp nowait " + user + " /usr/local/sbin/" + name + " " + strings.Join(append([]string{name}, args...), " ") + "\n"
	s.must(s.a.Host.WriteFile("/etc/inetd.conf", []byte(conf), 0o644, "root"))
	s.daemonOnA("inetd", "-i")
}
