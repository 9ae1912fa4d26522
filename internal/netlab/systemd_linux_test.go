package netlab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A host with systemd has what a real one has: units in control groups of their own, and sessions that
// logind knows, each with the user's own service manager.
func TestSystemdHost(t *testing.T) {
	ctx, l, hosts := newLab(t, 1, append(SystemdPackages, SSHPackages...)...)
	before := sysctl(t)
	h, err := l.AddSystemdHost(ctx, "s", v4(9))
	if err != nil {
		t.Fatal(err)
	}
	cgroup := h.control.cgroup
	if _, err := h.Start("sleep", "1"); err == nil {
		t.Error("systemd took an order")
	}
	for _, on := range []*Host{hosts[0], h} {
		if err := on.AddUser("alice", 1001); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Trust(ctx, "alice", hosts[0], h); err != nil {
		t.Fatal(err)
	}
	s, err := Open(hosts[0].CommandAs(ctx, "alice", "ssh", "-tt", "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, step := range []struct{ send, expect string }{
		{"cat /proc/self/cgroup", "0::/user.slice/user-1001.slice/session-"},
		{"systemctl --user is-system-running --wait", "running"},
		{"systemd-run --user --quiet --pipe cat /proc/self/cgroup", "0::/user.slice/user-1001.slice/user@1001.service/app.slice/run-"},
		{"loginctl list-sessions", "alice"},
	} {
		if err := s.Send(step.send); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Expect(ctx, step.expect); err != nil {
			t.Fatalf("%s: %v", step.send, err)
		}
	}
	if out, err := h.Run(ctx, "systemctl", "--failed", "--no-legend", "--plain"); err != nil || len(out) > 0 {
		t.Errorf("units have failed: %s; %v", out, err)
	}
	if after := sysctl(t); after != before {
		t.Errorf("the machine's kernel parameters are %q, were %q", after, before)
	}
	if _, err := os.Stat(cgroup); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cgroup); !os.IsNotExist(err) {
		t.Errorf("the control group is left: %v", err)
	}
}

// sysctl returns kernel parameters of the machine that systemd sets where it can.
func sysctl(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"fs/file-max", "fs/nr_open", "kernel/pid_max", "kernel/core_pattern", "kernel/sysrq", "net/unix/max_dgram_qlen"} {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
