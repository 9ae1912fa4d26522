package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ownerEnv makes the test program one that makes a lab, tells about it, and waits to be killed.
const ownerEnv = "NETLAB_TEST_OWNER"

func TestMain(m *testing.M) {
	Init()
	if os.Getenv(ownerEnv) != "" {
		os.Exit(own())
	}
	os.Exit(m.Run())
}

// own prints the lab's mark once a host of it runs a daemon.
func own() int {
	ctx := context.Background()
	l, err := New(ctx, SystemdPackages...)
	if err == nil {
		var h *Host
		if h, err = l.AddHost(ctx, "orphan", v4(1)); err == nil {
			_, err = h.Start("sleep", "1000")
		}
	}
	if err == nil {
		_, err = l.AddSystemdHost(ctx, "orphan2", v4(2))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.id)
	select {}
}

func v4(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 24)
}

func v6(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n}), 64)
}

// newLab makes a lab with hosts a, b, c, …, and closes it with the test.
func newLab(t *testing.T, hosts int, packages ...string) (context.Context, *Lab, []*Host) {
	t.Helper()
	Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // packages may have to be fetched
	t.Cleanup(cancel)
	l, err := New(ctx, packages...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range hosts {
		if _, err := l.AddHost(ctx, string(rune('a'+i)), v4(byte(i+1)), v6(byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, l, l.hosts
}

// leftovers returns the processes that are of a lab, by their command line, one of their mounts, or
// one of the given namespaces ("net:[4026532000]").
func leftovers(t *testing.T, mark string, namespaces map[string]bool) []string {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, proc := range procs {
		// A process may end meanwhile: what cannot be read then is no leftover.
		for _, file := range []string{"cmdline", "mountinfo"} {
			if data, err := os.ReadFile(filepath.Join(proc, file)); err == nil && strings.Contains(string(data), mark) {
				found = append(found, proc+"/"+file)
			}
		}
		for ns := range namespacesOf(proc) {
			if namespaces[ns] {
				found = append(found, proc+" "+ns)
			}
		}
	}
	return found
}

// namespacesOf returns the namespaces of a process, given as "/proc/1", of the kinds a host has of its own.
func namespacesOf(proc string) map[string]bool {
	found := map[string]bool{}
	for _, kind := range []string{"net", "pid", "mnt", "uts", "ipc"} {
		if name, err := os.Readlink(filepath.Join(proc, "ns", kind)); err == nil {
			found[name] = true
		}
	}
	return found
}

// hostStatus returns a field of /proc/PID/status, as the host sees it.
func hostStatus(h *Host, pid int, field string) (string, error) {
	data, err := h.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("process %d: no field %q", pid, field)
}
