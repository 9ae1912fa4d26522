package linux

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stopd/stopd/host"
)

// In a user namespace the ids of others' processes are shown as one that may be somebody's.
func TestUserNamespace(t *testing.T) {
	if os.Getenv(againEnv) == "" {
		needRoot(t)
		other := exec.Command("sleep", "infinity")
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001}, Pdeathsig: syscall.SIGKILL}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Process.Kill(); other.Wait() })
		again(t, "TestUserNamespace", func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "STOPD_TEST_OTHER="+strconv.Itoa(other.Process.Pid))
			one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
		})
		return
	}
	other, err := strconv.Atoi(os.Getenv("STOPD_TEST_OTHER"))
	if err != nil {
		t.Fatal(err)
	}
	s := openSnapshot(t, openHost(t))
	p := readProcess(t, s, other)
	if p.RUID != nil || p.EUID != nil || p.RGID != nil || p.RUser != "" {
		t.Errorf("ids of another user namespace: %+v", p)
	}
	if g := gapsOf(s, other); !slices.ContainsFunc(g, func(g string) bool { return strings.HasPrefix(g, "user and group ids") }) {
		t.Errorf("gaps are %q", g)
	}
	if p := readProcess(t, s, os.Getpid()); p.RUID == nil || *p.RUID != 0 {
		t.Errorf("own ids: %+v", p.RUID)
	}
}

// fakeJournal puts a program in the place of journalctl(1), and a directory in that of the journal.
func fakeJournal(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	was, limit := journals, journalTimeout
	journals, journalTimeout = []string{dir}, time.Minute // of a busy machine
	t.Cleanup(func() { journals, journalTimeout = was, limit })
}

// A journal that does not answer, or not to the end, costs a bounded time and is a gap.
func TestJournalFails(t *testing.T) {
	const record = `printf '{"__REALTIME_TIMESTAMP":"1795408186518386","_PID":"77","_UID":"0","MESSAGE":"Accepted password for m from 192.0.2.1 port 1 ssh2"}\n'`
	for _, tt := range []struct {
		name, script, gap string
		records           int
	}{
		{"answers", record, "", 1},
		{"finds nothing", "exit 1", "", 0},
		{"hangs", record + "; exec /bin/sleep 1000", "journal: journalctl did not end within ", 1},
		{"does not end", record + "; exec /usr/bin/yes", "journal: bound: the first 1048576 octets", 1},
		{"fails", "echo no access >&2; exit 1", "journal: journalctl: exit status 1: no access", 0},
		{"is not there", "", "journal: journalctl is not there to read it", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := openHost(t)
			fakeJournal(t, tt.script)
			if tt.name == "hangs" {
				journalTimeout = 5 * time.Second // for what it says before
			}
			s := openSnapshot(t, h)
			begin := time.Now()
			ls, err := s.Accepted(t.Context(), []host.ID{{PID: 77}})
			if err != nil || len(ls) != tt.records {
				t.Errorf("%+v, %v; want %d", ls, err, tt.records)
			}
			if took := time.Since(begin); took > journalTimeout+time.Minute {
				t.Errorf("it took %s", took)
			}
			var gap string
			for _, g := range s.Gaps() {
				gap += g.What + ": " + g.Why
			}
			if !strings.HasPrefix(gap, tt.gap) || tt.gap == "" && gap != "" {
				t.Errorf("gap %q, want %q", gap, tt.gap)
			}
		})
	}
}

// What a process that lives has logged is asked for once.
func TestJournalKept(t *testing.T) {
	h := openHost(t)
	fakeJournal(t, `echo >>"${0%/*}/runs"; printf '{"__REALTIME_TIMESTAMP":"1795408186518386","_PID":"77","_UID":"0","MESSAGE":"Accepted password for m from 192.0.2.1 port 1 ssh2"}\n'`)
	for range 3 {
		if ls, err := openSnapshot(t, h).Accepted(t.Context(), []host.ID{{PID: 77, Start: 5}}); err != nil || len(ls) != 1 {
			t.Fatalf("%+v, %v", ls, err)
		}
	}
	if runs, err := os.ReadFile(filepath.Join(journals[0], "runs")); err != nil || len(runs) != 1 {
		t.Errorf("journalctl ran %d times, %v", len(runs), err)
	}
}
