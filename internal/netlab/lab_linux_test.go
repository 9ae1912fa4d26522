package netlab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// connect tries a TCP connection from a host for some seconds, by bash, and returns the one line it reads.
func connect(ctx context.Context, h *Host, to netip.AddrPort, seconds string) (string, error) {
	script := fmt.Sprintf("exec 3<>/dev/tcp/%s/%d && read -r line <&3 && echo \"$line\"", to.Addr(), to.Port())
	out, err := h.Run(ctx, "timeout", seconds, "bash", "-c", script)
	return strings.TrimSpace(string(out)), err
}

// greet starts a server on a host which sends each client the given line.
func greet(ctx context.Context, t *testing.T, h *Host, port uint16, line string) *Daemon {
	t.Helper()
	d, err := h.Start("socat", fmt.Sprintf("TCP6-LISTEN:%d,fork,reuseaddr,ipv6only=0", port), "SYSTEM:echo "+line)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.WaitListen(ctx, port); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNetwork(t *testing.T) {
	ctx, _, hosts := newLab(t, 2, "socat")
	a, b := hosts[0], hosts[1]
	greet(ctx, t, b, 7001, "salve")
	for _, p := range b.Addrs {
		got, err := connect(ctx, a, netip.AddrPortFrom(p.Addr(), 7001), "60")
		if err != nil || got != "salve" {
			t.Errorf("a to %s: %q, %v; want %q", p.Addr(), got, err, "salve")
		}
	}
	to := netip.AddrPortFrom(b.Addr(), 7001)
	for range 2 {
		if err := b.Unlink(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := connect(ctx, a, to, "1"); err == nil {
			t.Errorf("a reads %q from the unlinked b", got)
		}
		if err := b.Link(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := connect(ctx, a, to, "60"); err != nil || got != "salve" {
			t.Errorf("a to the linked b: %q, %v; want %q", got, err, "salve")
		}
	}
	if _, err := os.Stat("/sys/class/net/port1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine has a link of the lab: %v", err)
	}
}

func TestHostView(t *testing.T) {
	// One a child would inherit, as those from a shell's "3<file" are.
	stray, err := syscall.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(stray)
	ctx, _, hosts := newLab(t, 2)
	a, b := hosts[0], hosts[1]
	if err := a.AddUser("alice", 2001); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, user, script, want string }{
		{"hostname", "root", "hostname; cat /etc/hostname", "a\na"},
		{"names", "root", "getent ahostsv4 b | head -1 | cut -d' ' -f1", b.Addr().String()},
		{"empty directories", "root", "find /tmp /var/lib/stopd /home -mindepth 1 -maxdepth 1; ls -A /root", "/home/alice"},
		{"devices", "root", "head -c1 /dev/zero | od -An -tx1 | tr -d ' '; echo x >/dev/null; readlink /dev/ptmx /dev/fd; stat -c '%A %G' /dev/ptmx /dev/pts/ptmx /dev/shm",
			"00\npts/ptmx\n/proc/self/fd\nlrwxrwxrwx root\ncrw-rw-rw- root\ndrwxrwxrwt root"},
		{"user", "alice", "id -un; id -u; pwd; echo $HOME $USER; stat -c %U ~", "alice\n2001\n/home/alice\n/home/alice alice\nalice"},
		{"environment", "alice", "env | cut -d= -f1 | grep -v ^_ | sort | tr '\\n' ' '", "HOME LANG LOGNAME PATH PWD SHELL TERM USER"},
		{"descriptors", "root", "exec ls /proc/self/fd", "0\n1\n2\n3"}, // 3 is the directory
		{"descriptors of PID 1", "root", "readlink /proc/1/fd/[012]; cat /proc/1/comm", "/dev/null\n/dev/null\n/dev/null\ninit"},
		{"pty", "root", "script -qc tty /dev/null | tr -d '\\r'", "/dev/pts/0"},
		{"links", "root", "ls /sys/class/net | tr '\\n' ' '", "eth0 lo"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := a.RunAs(ctx, tc.user, "sh", "-c", tc.script)
			if got := strings.TrimSpace(string(out)); err != nil || got != tc.want {
				t.Errorf("%s: %q, %v; want %q", tc.script, got, err, tc.want)
			}
		})
	}

	if _, err := b.RunAs(ctx, "alice", "true"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("b runs a program of a user it lacks: %v", err)
	}
	var exit *exec.ExitError
	if _, err := a.Run(ctx, "sh", "-c", "echo woe >&2; exit 3"); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "woe") {
		t.Errorf("Run of a failing program: %v", err)
	}
}

func TestHostFiles(t *testing.T) {
	ctx, _, hosts := newLab(t, 2)
	a, b := hosts[0], hosts[1]
	if err := a.AddUser("alice", 2001); err != nil {
		t.Fatal(err)
	}
	const name = "/opt/netlab-test/x"
	if err := a.WriteFile(name, []byte("one"), 0o640, "alice"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Run(ctx, "stat", "-c", "%a %U %G %s", name); err != nil || string(got) != "640 alice alice 3\n" {
		t.Errorf("stat: %q, %v", got, err)
	}
	if got, err := os.ReadFile(a.Path(name)); err != nil || string(got) != "one" {
		t.Errorf("read from outside: %q, %v", got, err)
	}
	if got, err := b.ReadFile(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("b has a's file: %q, %v", got, err)
	}
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine has a's file: %v", err)
	}
	// /var/run leads to /run by an absolute link, which outside of the host is the machine's.
	if err := a.WriteFile("/var/run/netlab-test", nil, 0o644, "root"); err == nil {
		t.Error("WriteFile follows an absolute link")
	}
	if _, err := os.Stat("/run/netlab-test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine has a's file: %v", err)
	}
	src := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(src, []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := a.Install(src, "/usr/local/bin/netlab-prog"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.RunAs(ctx, "alice", "netlab-prog"); err != nil || string(got) != "ran\n" {
		t.Errorf("installed program: %q, %v", got, err)
	}
}

func TestProcesses(t *testing.T) {
	ctx, _, hosts := newLab(t, 2)
	a, b := hosts[0], hosts[1]
	distinct := map[string]bool{}
	for _, proc := range []string{"/proc/self", fmt.Sprintf("/proc/%d", a.PID), fmt.Sprintf("/proc/%d", b.PID)} {
		maps.Copy(distinct, namespacesOf(proc))
	}
	if len(distinct) != 3*5 {
		t.Errorf("namespaces of the machine and two hosts are %v, want 15", distinct)
	}

	d, err := a.Start("sh", "-c", "echo out; echo err >&2; ls -l /proc/$$/fd; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"PPid": "1", "NSsid": strconv.Itoa(d.PID)} {
		if got, err := hostStatus(a, d.PID, field); err != nil || got != want {
			t.Errorf("daemon: %s is %q, %v; want %q", field, got, err, want)
		}
	}
	var log string
	if err := WaitFor(ctx, func() (bool, error) {
		log, err = d.Log()
		return strings.Contains(log, "2 -> "), err
	}); err != nil {
		t.Fatalf("%v; log is %q", err, log)
	}
	if !strings.HasPrefix(log, "out\nerr\n") || strings.Contains(log, " 3 -> ") || !strings.Contains(log, "0 -> /dev/null\n") {
		t.Errorf("log of daemon: %q", log)
	}
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
	if s := d.Status(); !s.Signaled() || s.Signal() != syscall.SIGTERM {
		t.Errorf("stopped daemon: status %#x", s)
	}
	if err := d.Stop(ctx); err != nil {
		t.Errorf("Stop of an ended daemon: %v", err)
	}
	if d, err := a.Start("no-such-program"); err == nil {
		t.Errorf("started %v", d)
	}

	// The shell ends, its child does not. Then the child does.
	out, err := a.Run(ctx, "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := hostStatus(a, orphan, "PPid"); err != nil || got != "1" {
		t.Errorf("orphan: parent is %q, %v; want 1", got, err)
	}
	if _, err := a.Run(ctx, "kill", strconv.Itoa(orphan)); err != nil {
		t.Fatal(err)
	}
	if err := WaitFor(ctx, func() (bool, error) {
		_, err := hostStatus(a, orphan, "State")
		return err != nil, nil
	}); err != nil {
		t.Errorf("orphan is not reaped: %v", err)
	}
	// PID 1 takes no harm from signals.
	if _, err := a.Run(ctx, "sh", "-c", "kill -TERM 1; kill -INT 1; kill -HUP 1"); err != nil {
		t.Error(err)
	}
	if _, err := a.Run(ctx, "true"); err != nil {
		t.Error(err)
	}
}

// A program is killed with its command, whether it runs or is stopped, and also if only nsenter is killed.
func TestCommandKilled(t *testing.T) {
	ctx, _, hosts := newLab(t, 1)
	a := hosts[0]
	if err := a.AddUser("alice", 2001); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, user, script string
		kill               func(*exec.Cmd, context.CancelFunc)
		state              string // of the program, before
	}{
		{"running", "alice", "exec sleep 1000", func(_ *exec.Cmd, cancel context.CancelFunc) { cancel() }, "S (sleeping)"},
		{"stopped", "root", "kill -STOP $$", func(_ *exec.Cmd, cancel context.CancelFunc) { cancel() }, "T (stopped)"},
		{"nsenter of root", "root", "exec sleep 1000", func(cmd *exec.Cmd, _ context.CancelFunc) { cmd.Process.Kill() }, "S (sleeping)"},
		{"nsenter of user", "alice", "exec sleep 1000", func(cmd *exec.Cmd, _ context.CancelFunc) { cmd.Process.Kill() }, "S (sleeping)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			commandCtx, cancel := context.WithCancel(ctx)
			defer cancel()
			cmd := a.CommandAs(commandCtx, tc.user, "sh", "-c", "echo $$; "+tc.script)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			if err := WaitFor(ctx, func() (bool, error) {
				state, err := hostStatus(a, pid, "State")
				return state == tc.state, err
			}); err != nil {
				t.Fatal(err)
			}
			tc.kill(cmd, cancel)
			if err := cmd.Wait(); err == nil {
				t.Error("killed command ends well")
			}
			if err := WaitFor(ctx, func() (bool, error) {
				state, err := hostStatus(a, pid, "State")
				return err != nil || strings.HasPrefix(state, "Z"), nil
			}); err != nil {
				t.Errorf("the program outlives its command: %v", err)
			}
		})
	}
}

func TestClose(t *testing.T) {
	ctx, l, hosts := newLab(t, 2)
	namespaces := map[string]bool{}
	mine := namespacesOf("/proc/self")
	for _, c := range []*control{l.sw, hosts[0].control, hosts[1].control} {
		for ns := range namespacesOf(fmt.Sprintf("/proc/%d", c.cmd.Process.Pid)) {
			if mine[ns] {
				continue
			}
			namespaces[ns] = true
			// As long as it is open nobody else's namespace gets its number.
			kind, _, _ := strings.Cut(ns, ":")
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", c.cmd.Process.Pid, kind))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
	}
	if want := 2*5 + 1; len(namespaces) != want {
		t.Fatalf("lab has namespaces %v, want %d", namespaces, want)
	}
	d, err := hosts[0].Start("sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(hosts[1].Command(ctx, "cat"))
	if err != nil {
		t.Fatal(err)
	}
	if found := leftovers(t, l.id, namespaces); len(found) == 0 {
		t.Fatal("leftovers does not see a lab")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), l.id) {
		t.Errorf("the machine's mounts, %v: %s", err, mounts)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	<-d.Done()
	if err := s.Wait(ctx); err == nil {
		t.Error("session ends well with its host")
	}
	// Each is reaped by then, but another process may be about to leave the namespaces.
	var found []string
	if err := WaitFor(ctx, func() (bool, error) {
		found = leftovers(t, l.id, namespaces)
		return len(found) == 0, nil
	}); err != nil {
		t.Errorf("left over: %v", found)
	}
	if _, err := l.AddHost(ctx, "late"); err == nil {
		t.Error("a closed lab takes a host")
	}
}

// TestOwnerKilled kills a process that has a lab, such that it can clean up nothing.
func TestOwnerKilled(t *testing.T) {
	Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // packages may have to be fetched
	defer cancel()
	owner := exec.CommandContext(ctx, "/proc/self/exe")
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	owner.Stderr = os.Stderr
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	mark := strings.TrimSpace(line)
	before := leftovers(t, "netlab-", nil)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	owner.Wait()
	if readErr != nil {
		t.Fatal(readErr)
	}
	if !strings.HasPrefix(mark, "netlab-") || !slices.ContainsFunc(before, func(s string) bool { return strings.HasSuffix(s, "mountinfo") }) {
		t.Fatalf("owner says %q, processes are %v", line, before)
	}
	var found []string
	if err := WaitFor(ctx, func() (bool, error) {
		found = leftovers(t, mark, nil)
		return len(found) == 0, nil
	}); err != nil {
		t.Errorf("left over: %v", found)
	}
	// The empty control group of the one with systemd, which another lab would remove later.
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&control{cgroup: filepath.Join(root, mark+"-orphan2")}).removeCgroup(); err != nil {
		t.Error(err)
	}
}
