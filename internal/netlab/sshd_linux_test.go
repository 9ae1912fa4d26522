package netlab

import (
	"strings"
	"testing"
	"time"
)

// TestSSH logs in from a to b, and from b's shell to c, each with a terminal.
func TestSSH(t *testing.T) {
	start := time.Now()
	ctx, l, hosts := newLab(t, 3, SSHPackages...)
	for _, h := range hosts {
		if err := h.AddUser("alice", 2001); err != nil {
			t.Fatal(err)
		}
		if _, err := h.StartSSHD(ctx); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := hosts[0], hosts[1], hosts[2]
	for _, hop := range [][2]*Host{{a, b}, {b, c}, {a, b}} {
		if err := l.Trust(ctx, "alice", hop[0], hop[1]); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("three hosts with sshd after %s", time.Since(start))

	s, err := Open(a.CommandAs(ctx, "alice", "ssh", "-4", "-tt", "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ask := func(question, want string) {
		t.Helper()
		if err := s.Send(question); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Expect(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	ask("echo on:$(hostname):$(id -un):$(tty)", "on:b:alice:/dev/pts/0")
	ask("echo from:${SSH_CLIENT%% *}.", "from:192.0.2.1.")
	ask("ssh -tt c", "$")
	ask("echo on:$(hostname):$(id -un):$(tty)", "on:c:alice:/dev/pts/0")
	ask("exec sleep 1000 # sl''ept", "sl''ept")

	for _, tc := range []struct {
		host *Host
		name string
		want int // processes
	}{{a, "ssh", 1}, {b, "ssh", 1}, {b, "bash", 1}, {c, "sleep", 1}, {c, "ssh", 0}} {
		var out []byte
		if err := WaitFor(ctx, func() (bool, error) {
			out, err = tc.host.Command(ctx, "pgrep", "-u", "alice", "-x", tc.name).Output()
			return strings.Count(string(out), "\n") == tc.want, nil // no match is an error
		}); err != nil {
			t.Errorf("%s on %s: %q, want %d; %v", tc.name, tc.host.Name, out, tc.want, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := WaitFor(ctx, func() (bool, error) {
		out, _ := c.Command(ctx, "pgrep", "-u", "alice").Output() // exit status 1 for none
		return len(out) == 0, nil
	}); err != nil {
		t.Errorf("alice stays on c after hanging up: %v", err)
	}
}

func TestSSHWithoutTrust(t *testing.T) {
	ctx, _, hosts := newLab(t, 2, SSHPackages...)
	for _, h := range hosts {
		if err := h.AddUser("mallory", 2002); err != nil {
			t.Fatal(err)
		}
	}
	d, err := hosts[1].StartSSHD(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := hosts[0].RunAs(ctx, "mallory", "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "b", "true")
	if err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("ssh without a key: %q, %v", out, err)
	}
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
}
