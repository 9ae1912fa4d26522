package integration

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/stopd/stopd/report"
)

// The unit of stopctl watch, in its sandbox, reads another user's log, asks from a port below 1024, and keeps what is answered.
func TestWatchUnit(t *testing.T) {
	i := install(t)
	i.must(i.h.Install("../deploy/stopctl-watch.service", "/etc/systemd/system/stopctl-watch.service"))
	i.run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=40", "/etc/systemd/system/stopctl-watch.service")
	i.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/stopctl-watch.service")
	i.configures("on_behalf", `on_behalf = ["192.0.2.2"]`)
	i.must(i.h.WriteFile("/etc/stopd/watch.toml", []byte("hosts = [\"192.0.2.2\"]\n[limits]\ntimeout = \"60s\"\nage = \"1h\"\nretries = 100\n[[rule]]\nask = \"source\"\ntype = \"SV\"\n"), 0o600, "root"))
	i.run("sh", "-c", "umask 077; mkdir /var/log/suricata && touch /var/log/suricata/eve.json && chown -R bob /var/log/suricata && systemctl daemon-reload")
	i.run("systemctl", "enable", "--now", "stopd.socket")
	i.run("systemctl", "start", "stopctl-watch")
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := i.h.Run(context.Background(), "journalctl", "--no-pager", "-u", "stopctl-watch", "-u", "stopd")
			t.Logf("%s", log)
		}
	})
	i.wait("a position", func() (bool, error) {
		_, err := i.h.ReadFile("/var/lib/stopd/watch.position")
		return err == nil, ignoreMissing(err)
	})
	out := i.intrudes()
	cmd := i.h.Command(i.ctx, "sh", "-c", "cat >>/var/log/suricata/eve.json")
	cmd.Stdin = strings.NewReader(eveRecord(out.local, out.remote, "ET SCAN one"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	token := ""
	i.wait("a token", func() (bool, error) {
		text, err := i.h.Run(i.ctx, "stopctl", "tokens")
		token = regexp.MustCompile(`\bs[a-z2-7]{52}\b`).FindString(string(text))
		return token != "", ignoreExit(err)
	})
	text, err := i.h.Run(i.ctx, "stopctl", "redeem", "-store", "/var/lib/stopd/store", "-identity", "/root/admin.key", "-by", "the administrator", "-reason", "a test", token)
	i.must(err)
	r, _, err := report.DecodeRedeemed(text)
	i.must(err)
	if c := r.Report.Connection; c == nil || c.User != "mallory" {
		t.Errorf("the token stands for %+v", r.Report)
	}
	i.run("systemctl", "stop", "stopctl-watch")
	if got := i.run("systemctl", "show", "--value", "-p", "Result", "stopctl-watch"); got != "success" {
		t.Errorf("the stop is a %s", got)
	}
	log := ""
	i.wait("the summary", func() (bool, error) { // journald takes what is written when it comes to it
		log = i.run("journalctl", "-o", "cat", "-u", "stopctl-watch")
		return strings.Contains(log, "stopctl watch: lines read: 1;"), nil
	})
	if strings.Contains(log, token) {
		t.Errorf("its log is %s", log)
	}
}
