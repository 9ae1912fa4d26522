package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// carols is an innocent's connection from b to c, about which anybody on c may ask.
func (s *stage) carols() connection {
	s.t.Helper()
	return s.one(s.b, "carol's connection", func(c connection) bool { return c.remote.Port() == innocentPort })
}

// types sends octets, given as printf(1) wants them, to b's daemon by netcat, and returns all that comes back
// until the daemon closes.
func (s *stage) types(format string) string {
	s.t.Helper()
	out, err := s.c.Host.Run(s.ctx, "sh", "-c", fmt.Sprintf("printf '%s' | nc.openbsd -N %s 113", format, s.b.Host.Addr()))
	s.must(err)
	return string(out)
}

func TestNetcat(t *testing.T) {
	s := theWorld(t).stage(t)
	p := s.carols().local.Port()
	const token, unparsable = "token", "0 , 0 : ERROR : UNKNOWN-ERROR\r\n"
	ok := fmt.Sprintf("%d , %d : USERID : OTHER : %s\r\n", p, innocentPort, token)
	for _, tt := range []struct{ name, typed, want string }{
		{"RFC 1413", fmt.Sprintf(`%d , %d\r\n`, p, innocentPort), ok},
		{"without blanks", fmt.Sprintf(`%d,%d\r\n`, p, innocentPort), ok},
		{"blanks and tabs", fmt.Sprintf(`\t %d\t, %d \r\n`, p, innocentPort), ok},
		{"lone LF", fmt.Sprintf(`%d,%d\n`, p, innocentPort), ok},
		{"SV", fmt.Sprintf(`%d, %d : sv\r\n`, p, innocentPort), ok},
		{"wrong port", fmt.Sprintf(`%d , %d\r\n`, p, innocentPort+1), fmt.Sprintf("%d , %d : ERROR : NO-USER\r\n", p, innocentPort+1)},
		{"ports out of range", `0 , 70000\r\n`, "0 , 70000 : ERROR : INVALID-PORT\r\n"},
		{"two requests", fmt.Sprintf(`%d , %d\r\n%[1]d , 9\r\n`, p, innocentPort), ok + fmt.Sprintf("%d , 9 : ERROR : NO-USER\r\n", p)},
		{"no SID", fmt.Sprintf(`%d , %d : SV_REC\r\n`, p, innocentPort), unparsable},
		{"NUL", fmt.Sprintf(`%d , %d\000\r\n`, p, innocentPort), unparsable},
		{"nothing after what cannot be parsed", fmt.Sprintf(`hello\r\n%d , %d\r\n`, p, innocentPort), unparsable},
		{"oversized", strings.Repeat("1", 1100) + `\r\n`, unparsable},
		{"oversized without an end", strings.Repeat("1", 5000), unparsable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := s.types(tt.typed)
			var tokens []string
			for line := range strings.Lines(got) {
				if r, err := stop.ParseReply([]byte(strings.TrimSuffix(line, "\r\n")), stop.Request{Local: uint64(p), Remote: innocentPort}); err == nil && r.Error == "" {
					tokens = append(tokens, r.UserID)
					got = strings.ReplaceAll(got, r.UserID, token)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for _, text := range tokens {
				_, r, err := s.b.Redeem(s.ctx, text)
				if err != nil || r.Report.Connection == nil || r.Report.Connection.User != "carol" || r.Token != text {
					t.Errorf("token %q stands for %+v, %v", text, r.Report.Connection, err)
				}
			}
		})
	}
}

// failed checks that a command ended with an exit status, for a reason.
func failed(t *testing.T, err error, status int, why string) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != status || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want exit status %d and %q", err, status, why)
	}
}

// Port scanners ask an ident daemon who owns the service that they have just connected to.
func TestInboundConnection(t *testing.T) {
	s := theWorld(t).stage(t)
	s.openOn(s.c, "nc.traditional", s.b.Host.Addr().String(), "22")
	c := s.one(s.b, "scanner's connection", func(c connection) bool { return s.of(s.c, c.remote.Addr()) && c.local.Port() == 22 })
	for _, typ := range []string{"ID", "SV", "ID_REC", "SV_REC"} {
		_, err := s.c.Stopctl(s.ctx, "request", "-type", typ, s.b.Host.Addr().String(), "22", fmt.Sprint(c.remote.Port()))
		failed(t, err, 4, "NO-USER")
	}
}

func TestStrangerOnBehalf(t *testing.T) {
	s := theWorld(t).stage(t)
	before := s.answered()
	token := s.request(s.d, "SV_REC", s.carols(), "-for", s.c.Host.Addr().String())
	_, r, err := s.b.Redeem(s.ctx, token)
	s.must(err)
	if r.Report.Kind != report.KindNone || r.Report.Reason == "" || r.Report.Connection != nil || len(r.Traceback) > 0 {
		t.Errorf("a stranger's question on behalf of c came to %+v", r)
	}
	_, r, err = s.b.Redeem(s.ctx, s.request(s.g, "SV", s.carols(), "-for", s.c.Host.Addr().String()))
	s.must(err)
	if r.Report.Kind != report.KindSV || !r.Report.Request.OnBehalf {
		t.Errorf("the gateway's question on behalf of c came to %+v", r)
	}
	if d := cmp.Diff(map[string]int{"b": 2}, s.since(before)); d != "" {
		t.Errorf("answers by host (-want +got):\n%s", d)
	}
}

// onBehalf asks from the gateway on behalf of c, and returns the kind of what is kept.
func (s *stage) onBehalf() string {
	s.t.Helper()
	_, r, err := s.b.Redeem(s.ctx, s.request(s.g, "SV", s.carols(), "-for", s.c.Host.Addr().String()))
	s.must(err)
	return r.Report.Kind
}

func TestReload(t *testing.T) {
	s := theWorld(t).stage(t)
	good, err := s.b.Host.ReadFile(site.Config)
	s.must(err)
	write := func(b []byte) { s.must(s.b.Host.WriteFile(site.Config, b, 0o600, "root")) }
	t.Cleanup(func() {
		s.ctx = context.Background()
		write(good)
		s.reload("configuration reloaded")
	})
	s.must(s.b.Configure("on_behalf", "on_behalf = []"))
	s.must(s.b.Configure("timeout", `timeout = "soon"`))
	s.reload("reload refused")
	if k := s.onBehalf(); k != report.KindSV {
		t.Errorf("after a configuration that was refused the gateway's question came to %q", k)
	}
	s.must(s.b.Configure("timeout", `timeout = "1s"`))
	s.reload("configuration reloaded")
	if k := s.onBehalf(); k != report.KindNone {
		t.Errorf("after the gateway was taken from the configuration its question came to %q", k)
	}
}

// A daemon that is told to end while it waits for a previous host keeps what became of that.
func TestTerminate(t *testing.T) {
	s := theWorld(t).stage(t)
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	s.unlink()
	token := s.request(s.c, "SV_REC", tr.out)
	s.wait("wait until the attacker's host is asked", func() (bool, error) {
		_, r, err := s.b.Redeem(s.ctx, token)
		return len(askedOf(r)) > 0, err
	})
	old := s.b.Daemon
	s.must(old.Stop(s.ctx))
	_, r, err := s.b.Redeem(s.ctx, token)
	runErr := s.b.Run(s.ctx)
	s.must(errors.Join(err, runErr))
	if st := old.Status(); !st.Exited() || st.ExitStatus() != 0 {
		log, _ := old.Log()
		t.Errorf("stopd ended with %v: %s", st, log)
	}
	if len(r.Traceback) != 1 || r.Traceback[0].Kind != "none" || r.Traceback[0].Answered.IsZero() {
		t.Errorf("the trace-back is %+v", r.Traceback)
	}
}

// Who asks and does not wait for the reply is answered all the same, and harms nobody.
func TestVanishingClient(t *testing.T) {
	s := theWorld(t).stage(t)
	c := s.carols()
	before, err := s.b.Answered(s.ctx)
	s.must(err)
	const times = 5
	for range times {
		_, err := s.c.Host.Run(s.ctx, "bash", "-c", fmt.Sprintf(`exec 3<>/dev/tcp/%s/113; printf '%d , %d : SV\r\n' >&3`, c.local.Addr(), c.local.Port(), c.remote.Port()))
		s.must(err)
	}
	s.wait("wait for the reports", func() (bool, error) {
		n, err := s.b.Answered(s.ctx)
		return n == before+times, err
	})
	s.request(s.c, "ID", c)
}

func TestIdleClients(t *testing.T) {
	s := theWorld(t).stage(t)
	s.on(s.c, "mallory", "clients", fmt.Sprintf("%s:113:30", s.b.Host.Addr()))
	s.wait("wait for idle clients", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		n := 0
		for _, c := range cs {
			if c.local.Port() == 113 && s.of(s.c, c.remote.Addr()) {
				n++
			}
		}
		return n == 30, err
	})
	_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", s.carols()))
	s.must(err)
	if r.Report.Kind != report.KindSV {
		t.Errorf("the report is of kind %q", r.Report.Kind)
	}
}

func TestRedeemWithoutDaemon(t *testing.T) {
	s := theWorld(t).stage(t)
	token := s.request(s.c, "SV", s.carols())
	want, _, err := s.b.Redeem(s.ctx, token)
	s.must(err)
	s.must(s.b.Daemon.Stop(s.ctx))
	t.Cleanup(func() {
		if err := s.b.Run(context.Background()); err != nil {
			t.Error(err)
		}
	})
	// The configuration is found beside the store.
	_, err = s.b.Stopctl(s.ctx, "export", "-store", site.Store, "-by", "an investigator", "-reason", "a test", token)
	s.must(err)
	sealed, err := s.b.Host.Run(s.ctx, "stopctl", "export", "-config", site.Config, "-by", "an investigator", "-reason", "a test", token)
	s.must(err)
	// The key was taken off the host: the export is opened on this machine.
	dir := t.TempDir()
	key, err := s.b.Host.ReadFile(site.Identity)
	s.must(err)
	for name, b := range map[string][]byte{"sealed": sealed, "key": key} {
		s.must(os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	got, err := exec.CommandContext(s.ctx, filepath.Join(s.bin, "stopctl"), "redeem", "-identity", filepath.Join(dir, "key"), filepath.Join(dir, "sealed")).Output()
	s.must(err)
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("redeemed from an export (-on the host +elsewhere):\n%s", d)
	}
	around := []string{"-around", time.Now().UTC().Format(time.RFC3339)}
	redeem := func(token string) (string, error) {
		return s.b.Stopctl(s.ctx, slices.Concat(site.RedeemFlags("a trace"), around, []string{token})...)
	}
	for _, prefix := range []string{token, token[:10], token[:20]} {
		if got, err := redeem(prefix); err != nil || got != strings.TrimSuffix(string(want), "\n") {
			t.Errorf("redeem %q without a daemon: %v\n%s", prefix, err, got)
		}
	}
	_, err = redeem(token[:9])
	failed(t, err, 2, token[:9])
	_, err = redeem("s234567abcd")
	failed(t, err, 1, "s234567abcd")
}
