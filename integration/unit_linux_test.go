package integration

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// What an administrator does with systemd, from the first question to the stop, and what the sandbox leaves of the
// daemon: nothing that it does not need, and all that it is to see.
func TestUnit(t *testing.T) {
	i := install(t)
	i.run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=40", "/etc/systemd/system/stopd.service")
	i.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/stopd.service", "/etc/systemd/system/stopd.socket")
	i.run("systemctl", "enable", "--now", "stopd.socket")
	out := i.intrudes()

	// The socket is there before the daemon.
	if state := i.shows("ActiveState"); state != "inactive" {
		t.Errorf("before the first question the unit is %s", state)
	}
	i.asks(out, 113)
	state := ""
	i.wait("the end of the start", func() (bool, error) { // a reply may leave before the service manager is told
		state = i.shows("ActiveState")
		return state != "activating", nil
	})
	if state != "active" {
		t.Errorf("after the first question the unit is %s", state)
	}

	if log := i.run("journalctl", "-o", "cat", "-u", "stopd"); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") || strings.Contains(log, "read at /proc") {
		t.Errorf("after the first question the log has %s", log)
	}

	t.Run("sandbox", i.sandboxed)
	t.Run("checks", i.checks)
	t.Run("sees what is mounted later", i.seesMounts)
	t.Run("sees everything", func(t *testing.T) { i.seesEverything(t, out) })
	t.Run("reload", func(t *testing.T) { i.reloads(t, out) })
	t.Run("killed", func(t *testing.T) { i.isKilled(t, out) })

	i.run("systemctl", "restart", "stopd")
	i.asks(out, 113)
	again := "what was remembered before is remembered again"
	before := strings.Count(i.run("journalctl", "-o", "cat", "-u", "stopd"), again)
	i.run("systemctl", "restart", "stopd")
	i.asks(out, 113)
	i.wait("what was remembered before the restart", func() (bool, error) {
		return strings.Count(i.run("journalctl", "-o", "cat", "-u", "stopd"), again) > before, nil
	})
	t.Run("without a keyring", func(t *testing.T) { i.withoutKeyring(t, out) })
	i.run("systemctl", "stop", "stopd.socket", "stopd.service")
	i.run("sh", "-e", "-c", i.steps[1])
	if state := i.shows("ActiveState"); state != "active" {
		t.Errorf("after the start the unit is %s", state)
	}
	i.asks(out, 113)
	i.run("systemctl", "stop", "stopd.service")
	if state := i.run("systemctl", "is-active", "stopd.socket"); state != "active" {
		t.Errorf("after the stop the socket is %s", state)
	}
	i.run("systemctl", "stop", "stopd.socket")
	if result := i.shows("Result"); result != "success" {
		t.Errorf("the stop is a %s", result)
	}
	if left := i.shows("ActiveState"); left != "inactive" {
		t.Errorf("after the stop the unit is %s", left)
	}
	i.run("stopctl", "audit")
}

// Of each process there is no more than what it needs.
func (i *installation) sandboxed(t *testing.T) {
	uid := i.run("id", "-u", "stopd")
	for name, p := range i.all() {
		want := map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "Uid": "0"}
		if name == "front" || name == "tracer" {
			want["Uid"], want["CapEff"] = uid, "0000000000000000"
		}
		for key, value := range want {
			if got, _, _ := strings.Cut(p.status[key], "\t"); got != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got, value)
			}
		}
		// CAP_SYS_MODULE, which no sandbox may leave: 1<<16 (linux/capability.h).
		if bounding, err := strconv.ParseUint(p.status["CapBnd"], 16, 64); err != nil || bounding&(1<<16) != 0 {
			t.Errorf("%s: CapBnd is %q", name, p.status["CapBnd"])
		}
	}
}

// The check says in the sandbox what it says outside, but for what is taken away in it.
func (i *installation) checks(t *testing.T) {
	unit, err := i.h.ReadFile("/etc/systemd/system/stopd.service")
	i.must(err)
	unit = []byte(strings.NewReplacer("Type=notify", "Type=oneshot", "ExecStart=/usr/local/sbin/stopd", "ExecStart=/usr/local/sbin/stopd -check").Replace(string(unit)))
	i.must(i.h.WriteFile("/etc/systemd/system/check.service", unit, 0o644, "root"))
	i.run("systemctl", "daemon-reload")
	i.run("systemctl", "start", "check")
	seen := func(lines string) string {
		_, lines, _ = strings.Cut(lines, "\nprevious hosts: ")
		lines, _, _ = strings.Cut(lines, "\nkeeper can: ") // less in here
		return lines
	}
	out, inside := i.run("systemd-run", "--quiet", "--pipe", "--wait", "/usr/local/sbin/stopd", "-check"), ""
	i.wait("what is printed", func() (bool, error) {
		inside = i.run("journalctl", "-o", "cat", "-u", "check")
		return strings.Contains(inside, "\nkeeper can: "), nil
	})
	if d := cmp.Diff(seen(out), seen(inside)); d != "" || strings.Count(inside, ": yes") < 6 {
		t.Errorf("stopd -check (-without the sandbox +in it):\n%s\n%s", d, inside)
	}
}

// Where the keyring is refused, as in containers, the daemon does without, and says so once.
func (i *installation) withoutKeyring(t *testing.T, out connection) {
	const dropIn = "/etc/systemd/system/stopd.service.d/keyring.conf"
	i.must(i.h.WriteFile(dropIn, []byte("[Service]\nSystemCallFilter=~add_key keyctl\n"), 0o644, "root"))
	i.run("systemctl", "daemon-reload")
	i.run("systemctl", "restart", "stopd")
	i.asks(out, 113)
	const lost = "what is remembered will be lost with a restart"
	if n := strings.Count(i.run("journalctl", "-o", "cat", "-u", "stopd"), lost); n != 1 {
		t.Errorf("said %d times: %s", n, lost)
	}
	says := i.run("systemd-run", "--quiet", "--pipe", "--wait", "-p", "SystemCallFilter=~add_key keyctl", "-p", "SystemCallErrorNumber=EPERM", "/usr/local/sbin/stopd", "-check")
	if !strings.Contains(says, "\nwhat is remembered, over a restart: lost: ") {
		t.Errorf("stopd -check says %s", says)
	}
	i.run("rm", dropIn)
	i.run("systemctl", "daemon-reload")
	i.run("systemctl", "restart", "stopd")
}

// Network namespaces with names are found by their mounts.
func (i *installation) seesMounts(t *testing.T) {
	i.run("ip", "netns", "add", "later")
	defer i.run("ip", "netns", "delete", "later")
	if mounts := i.run("cat", fmt.Sprintf("/proc/%d/mountinfo", i.all()["collector"].pid)); !strings.Contains(mounts, " /run/netns/later ") {
		t.Errorf("the collector's mounts are %s", mounts)
	}
}

// The report is the one that a daemon without the sandbox makes.
func (i *installation) seesEverything(t *testing.T, out connection) {
	i.run("stopctl", "init", "-dir", "/srv/plain", "-listen", "0.0.0.0:1130")
	// What others do on the host meanwhile may differ, but not again and again.
	var d string
	for range 5 {
		in := i.looks(out, 113)
		if len(in.Processes) < 3 || len(in.Previous) != 1 || in.Previous[0].Remote.Addr() != i.to.Addr() || len(in.Users) == 0 || in.Host.Name != "s" ||
			in.Host.Clock == nil || len(in.Gaps) > 0 {
			t.Fatalf("the report is %s", report.Encode(in))
		}
		inside := i.asSeen(in, "stopd")
		i.run("systemctl", "stop", "stopd") // each daemon would see the other
		i.run("systemd-run", "--quiet", "--collect", "--unit=plain", "--service-type=notify", "/usr/local/sbin/stopd", "-config", "/srv/plain/stopd.toml")
		plain := i.looks(out, 1130, "-store", "/srv/plain/store", "-identity", "/srv/plain/admin.key")
		d = cmp.Diff(i.asSeen(plain, "plain"), inside)
		i.run("systemctl", "stop", "plain")
		i.run("systemctl", "start", "stopd")
		if d == "" {
			break
		}
	}
	if d != "" {
		t.Errorf("the report differs (-without the sandbox +in it):\n%s", d)
	}
}

// A configuration that is bad is not taken.
func (i *installation) reloads(t *testing.T, out connection) {
	config := "/etc/stopd/stopd.toml"
	good, err := i.h.ReadFile(config)
	i.must(err)
	i.configures("errors ", `errors = "unknown"`)
	i.run("systemctl", "reload", "stopd")
	i.wait("the reload", func() (bool, error) {
		_, err := i.to.Run(i.ctx, "stopctl", "request", "192.0.2.2", "1", "2")
		return err != nil && strings.Contains(err.Error(), "UNKNOWN-ERROR"), nil
	})
	i.must(i.h.WriteFile(config, []byte("listn = 1\n"), 0o600, "root"))
	if out, err := i.h.Run(i.ctx, "systemctl", "reload", "stopd"); err == nil {
		t.Errorf("a bad configuration is reloaded: %s", out)
	}
	i.must(i.h.WriteFile(config, good, 0o600, "root"))
	i.run("systemctl", "reload", "stopd")
	i.asks(out, 113)
}

// Whichever of its processes is killed, the daemon answers again.
func (i *installation) isKilled(t *testing.T, out connection) {
	before := i.all()
	for _, name := range []string{"front", "tracer", "collector", "keeper", "supervisor"} {
		was := i.all()
		i.run("kill", "-KILL", strconv.Itoa(was[name].pid))
		i.wait("another "+name, func() (bool, error) {
			now := i.processes()
			return len(now) == 5 && now[name].pid != was[name].pid, nil
		})
		i.asks(out, 113)
	}
	now := i.all()
	if before["supervisor"].pid == now["supervisor"].pid || i.shows("NRestarts") != "1" {
		t.Errorf("after five kills the unit was started anew %s times", i.shows("NRestarts"))
	}
}

// What rsyslog writes of what it is told shows that a store was made anew, in which everything is signed as it has to be.
func TestForwarded(t *testing.T) {
	i := install(t)
	const config = `module(load="imtcp")
module(load="imudp")
input(type="imtcp" port="514")
input(type="imudp" port="514")
authpriv.* action(type="omfile" file="/var/log/told" template="RSYSLOG_TraditionalFileFormat")
`
	i.must(i.to.WriteFile("/etc/rsyslog-test.conf", []byte(config), 0o644, "root"))
	_, err := i.to.Start("rsyslogd", "-n", "-f", "/etc/rsyslog-test.conf", "-i", "/run/rsyslog-test.pid")
	i.must(err)
	i.must(i.to.WaitListen(i.ctx, 514))
	out := i.intrudes()
	// says runs the daemon for some questions, and gives what the log server has then been told.
	says := func(to string, questions int) {
		t.Helper()
		i.configures("to = ", `to = "`+to+`"`)
		i.run("systemctl", "start", "stopd")
		for range questions {
			i.asks(out, 113)
		}
		i.run("systemctl", "stop", "stopd.socket", "stopd.service")
		if strings.Contains(to, "192.0.2.9") {
			return // nobody is there
		}
		head := strings.Fields(i.run("sh", "-c", "stopctl audit 2>&1 | sed -n 's/^log: //p'"))
		i.wait("the last checkpoint", func() (bool, error) {
			b, err := i.to.ReadFile("/var/log/told")
			if err != nil {
				return false, err
			}
			i.must(i.h.WriteFile("/root/told", b, 0o600, "root"))
			return strings.Contains(string(b), fmt.Sprintf("leaves=%s root=", head[1])), nil
		})
	}
	audit := func() string { return i.run("sh", "-c", "stopctl audit -forwarded /root/told 2>&1; echo status $?") }
	for n, to := range []string{"tcp://192.0.2.1:514", "udp://192.0.2.1:514"} {
		says(to, 3)
		got := audit()
		if !strings.HasSuffix(got, "status 0") || !strings.Contains(got, "forwarded: ") || n == 1 && strings.Contains(got, "forwarded: 0 records") {
			t.Errorf("%s: %s", to, got)
		}
	}
	i.run("mv", "/var/lib/stopd/store", "/root/removed")
	says("tcp://192.0.2.9:514", 30)
	i.run("stopctl", "audit")
	if got := audit(); !strings.Contains(got, "altered: log: leaf ") || !strings.HasSuffix(got, "status 3") {
		t.Errorf("a store that was made anew: %s", got)
	}
}

// The files of deploy/ are what the programs that use them take.
func TestDeploy(t *testing.T) {
	netlab.Require(t)
	dir, err := netlab.Packages(t.Context(), "apparmor", "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{dir + "/sbin/apparmor_parser", "-Q", "-K", "--skip-kernel-load", "--base", dir + "/etc/apparmor.d", "-I", dir + "/etc/apparmor.d", "../deploy/stopd.apparmor"},
		{dir + "/usr/bin/promtool", "check", "rules", "../deploy/alerts.yml"},
		{dir + "/usr/bin/promtool", "test", "rules", "testdata/alerts.yml"},
	} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", argv, err, out)
		}
	}
}

// asSeen is a report without when and by what it was looked, nor what the service manager has of that.
func (i *installation) asSeen(r report.Report, by string) any {
	i.t.Helper()
	boot := r.Host.BootTime // as each daemon computes it at its start, and so the times that are counted from it
	r.Salt, r.Tool, r.Host.Clock, r.Host.BootTime, r.Request = "", report.Tool{}, nil, time.Time{}, report.Request{}
	for n, p := range r.Processes {
		r.Processes[n].Start = time.Time{}.Add(p.Start.Sub(boot))
		if p.PID == 1 || p.Name == "systemd-journal" { // each holds an end of the daemon's log
			r.Processes[n].Descriptors = nil
		}
	}
	var own []int
	for _, p := range i.processesOf(by) {
		own = append(own, p.pid)
	}
	for n, c := range r.Channels {
		if slices.ContainsFunc(c.Ends, func(e trace.End) bool { return slices.Contains(own, e.PID) }) {
			r.Channels[n].Ends = nil
		}
	}
	var seen any
	i.must(json.Unmarshal(report.Encode(r), &seen))
	return seen
}
