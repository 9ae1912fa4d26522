package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// An installation is a host on which an administrator has installed the files of deploy/, and another one.
type installation struct {
	t     *testing.T
	ctx   context.Context
	lab   *netlab.Lab
	h, to *netlab.Host
	steps []string // of docs/operations.md: what installs, what starts
}

// install does what docs/operations.md says, in its words, but for the start.
func install(t *testing.T) *installation {
	t.Helper()
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	i := &installation{t: t, ctx: ctx}
	bin, err := build(ctx)
	i.must(err)
	i.lab, err = netlab.New(ctx, systemdPackages...)
	i.must(err)
	t.Cleanup(func() {
		if err := i.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	i.to, err = i.lab.AddHost(ctx, "a", netip.MustParsePrefix("192.0.2.1/24"))
	i.must(err)
	i.h, err = i.lab.AddSystemdHost(ctx, "s", netip.MustParsePrefix("192.0.2.2/24"))
	i.must(err)
	for _, h := range []*netlab.Host{i.to, i.h} {
		for user, uid := range users {
			i.must(h.AddUser(user, uid))
		}
	}
	i.must(i.to.Install(filepath.Join(bin, "stopctl"), "/usr/local/bin/stopctl"))
	const source = "/root/source/"
	for _, f := range []string{"stopd", "stopctl"} {
		i.must(i.h.Install(filepath.Join(bin, f), source+"bin/"+f))
	}
	for _, f := range []string{"stopd.service", "stopd.socket", "stopd.sysusers"} {
		i.must(i.h.Install("../deploy/"+f, source+"deploy/"+f))
	}
	i.steps = i.commands()
	i.run("sh", "-e", "-c", "cd "+source+"\n"+i.steps[0])
	i.run("mount", "--make-rshared", "/") // as systemd does itself on what is no container
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := i.h.Run(context.Background(), "journalctl", "--no-pager", "-b", "-n", "60", "-u", "stopd", "-u", "stopd.socket")
			t.Logf("%s", log)
		}
	})
	return i
}

// commands are those of docs/operations.md.
func (i *installation) commands() (steps []string) {
	i.t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	i.must(err)
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(text, -1) {
		steps = append(steps, string(m[1]))
	}
	if len(steps) != 2 {
		i.t.Fatalf("docs/operations.md has %d lists of commands", len(steps))
	}
	return steps
}

func (i *installation) must(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// run runs a command of the host's administrator.
func (i *installation) run(name string, args ...string) string {
	i.t.Helper()
	out, err := i.h.Run(i.ctx, name, args...)
	i.must(err)
	return strings.TrimSpace(string(out))
}

// shows is a property of the unit.
func (i *installation) shows(property string) string {
	i.t.Helper()
	return i.run("systemctl", "show", "--value", "-p", property, "stopd.service")
}

// asks asks the host about its end of a connection, from the connection's other end, and redeems the token.
func (i *installation) asks(c connection, port int, redeem ...string) report.Report {
	i.t.Helper()
	token, err := i.to.Run(i.ctx, "stopctl", "request", "-type", "SV", netip.AddrPortFrom(c.local.Addr(), uint16(port)).String(),
		strconv.Itoa(int(c.local.Port())), strconv.Itoa(int(c.remote.Port())))
	i.must(err)
	args := append([]string{"redeem", "-store", "/var/lib/stopd/store", "-identity", "/root/admin.key", "-by", "the administrator", "-reason", "a test"}, redeem...)
	out, err := i.h.Run(i.ctx, "stopctl", append(args, strings.TrimSpace(string(token)))...)
	i.must(err)
	r, _, err := report.DecodeRedeemed(out)
	i.must(err)
	return r.Report
}

// configures replaces a line of the configuration.
func (i *installation) configures(was, is string) {
	i.t.Helper()
	const config = "/etc/stopd/stopd.toml"
	b, err := i.h.ReadFile(config)
	i.must(err)
	lines := strings.Split(string(b), "\n")
	n := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, was) })
	if n < 0 {
		i.t.Fatalf("no line %q", was)
	}
	lines[n] = is
	i.must(i.h.WriteFile(config, []byte(strings.Join(lines, "\n")), 0o600, "root"))
}

// looks asks until the daemon, which has just started, sees by BPF, and had time for all.
func (i *installation) looks(c connection, port int, redeem ...string) (r report.Report) {
	i.t.Helper()
	i.wait("descriptors by BPF", func() (bool, error) {
		r = i.asks(c, port, redeem...)
		return slices.Contains(r.Tool.Sources, "bpf") && late(report.Redeemed{Report: r}, false) == "", nil
	})
	return r
}

// intrudes has mallory log in to the host and go on from there, by a process in an IPC namespace of its own, while bob works on it.
func (i *installation) intrudes() connection {
	i.t.Helper()
	i.must(i.h.WriteFile("/etc/sudoers.d/mallory", []byte("mallory ALL=(ALL) NOPASSWD: ALL\n"), 0o440, "root"))
	i.must(startVictim(i.ctx, i.to, victimPort))
	for _, user := range []string{"bob", "mallory"} {
		i.must(i.lab.Trust(i.ctx, user, i.to, i.h))
		s, err := netlab.Open(i.to.CommandAs(i.ctx, user, "ssh", "-tt", "s"))
		i.must(err)
		i.t.Cleanup(func() { _ = s.Close() })
		goes := "nc.traditional 192.0.2.1 22"
		if user == "mallory" {
			goes = fmt.Sprintf("sudo unshare --ipc sudo -u mallory nc.traditional 192.0.2.1 %d", victimPort)
		}
		i.must(s.Send(goes))
	}
	var out connection
	i.wait("the intruder's connection", func() (bool, error) {
		cs, err := connections(i.ctx, i.h)
		cs = slices.DeleteFunc(cs, func(c connection) bool { return c.remote.Port() != victimPort })
		if len(cs) == 1 {
			out = cs[0]
		}
		return len(cs) == 1, err
	})
	return out
}

func (i *installation) wait(what string, cond func() (bool, error)) {
	i.t.Helper()
	if err := netlab.WaitFor(i.ctx, cond); err != nil {
		i.t.Fatalf("%s: %v", what, err)
	}
}

// A running is one process of the daemon.
type running struct {
	pid    int
	status map[string]string // of /proc/PID/status
}

// processes returns those of the unit, by what they do.
func (i *installation) processes() map[string]running { return i.processesOf("stopd") }

func (i *installation) processesOf(unit string) map[string]running {
	i.t.Helper()
	found := map[string]running{}
	pids, err := i.h.Run(i.ctx, "cat", "/sys/fs/cgroup/system.slice/"+unit+".service/cgroup.procs")
	if err != nil {
		return nil // none has been started, or all have ended
	}
	for _, pid := range strings.Fields(string(pids)) {
		out, err := i.h.Run(i.ctx, "sh", "-c", fmt.Sprintf("cat /proc/%[1]s/status && tr '\\0' ' ' </proc/%[1]s/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		r := running{status: map[string]string{}}
		r.pid, err = strconv.Atoi(pid)
		i.must(err)
		lines := strings.Split(string(out), "\n")
		for _, l := range lines[:len(lines)-1] {
			key, value, _ := strings.Cut(l, ":")
			r.status[key] = strings.TrimSpace(value)
		}
		name := "supervisor"
		if f := strings.Fields(lines[len(lines)-1]); len(f) == 2 && f[0] == "stopd" {
			name = f[1]
		}
		found[name] = r
	}
	return found
}

// all waits until all five processes run, and returns them.
func (i *installation) all() map[string]running {
	i.t.Helper()
	var found map[string]running
	i.wait("all processes", func() (bool, error) { found = i.processes(); return len(found) == 5, nil })
	return found
}
