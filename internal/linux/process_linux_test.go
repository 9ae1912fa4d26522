package linux

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// reportOf reads what a child tells of itself.
func reportOf(t *testing.T, c *child) report {
	t.Helper()
	var r report
	if err := json.Unmarshal([]byte(c.line), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestHostileName(t *testing.T) {
	c := start(t, "hostile", nil, func(cmd *exec.Cmd) { cmd.Args = []string{"innocent", "0123456789"} })
	s := openSnapshot(t, openHost(t))
	p := readProcess(t, s, c.pid)
	want := []string{"innocent", text([]byte("\xff\x1b[2J\n\\789"))}
	if diff := cmp.Diff(want, p.Args); diff != "" || !utf8.ValidString(p.Args[1]) {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if p.Name != hostileName || p.PID != c.pid || *p.PPID != os.Getpid() || *p.PGRP != unix.Getpgrp() || p.StartTicks == 0 {
		t.Errorf("process with the name %q: %+v", hostileName, p)
	}
}

// TestEnding takes looks at processes that come and go, and checks that none is a mix of two.
func TestEnding(t *testing.T) {
	h := openHost(t)
	before, err := allPIDs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var coming sync.WaitGroup
	defer coming.Wait()
	defer cancel()
	coming.Go(func() {
		for ctx.Err() == nil {
			for _, name := range []string{"/usr/bin/true", "/usr/bin/env"} {
				cmd := exec.Command(name)
				cmd.Args = []string{name, name}
				if name == "/usr/bin/env" {
					cmd.Args[1] = "/usr/bin/true"
				}
				cmd.Run()
			}
		}
	})
	seen, ended := 0, 0
	for begin := time.Now(); time.Since(begin) < time.Second || seen == 0 && time.Since(begin) < time.Minute; {
		s := openSnapshot(t, h)
		pids, err := allPIDs()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range slices.Backward(pids) {
			if slices.Contains(before, pid) {
				continue
			}
			p, err := s.Process(t.Context(), pid)
			switch {
			case errors.Is(err, host.ErrNotFound):
				ended++
				continue
			case err != nil:
				t.Errorf("Process(%d): %v", pid, err)
				continue
			}
			seen++
			mixed(t, s, p)
			if p.PID != pid || p.StartTicks == 0 {
				t.Errorf("Process(%d) is %d, started %d", pid, p.PID, p.StartTicks)
			}
		}
		for _, g := range s.Gaps() {
			if g.What == "" || g.Why == "" {
				t.Errorf("empty gap %+v", g)
			}
		}
		s.Close()
	}
	t.Logf("%d seen, %d ended", seen, ended)
	if seen == 0 {
		t.Error("no process was seen")
	}
}

// mixed checks that name and arguments are of the same program, unless a gap says that it changed.
func mixed(t *testing.T, s host.Snapshot, p host.Process) {
	t.Helper()
	if len(p.Args) == 0 || len(gapsOf(s, p.PID)) > 0 || *p.PPID != os.Getpid() {
		return // ended, or said, or somebody else's
	}
	for _, name := range []string{"env", "true"} {
		path := "/usr/bin/" + name
		if named := p.Name == name; named != (p.Args[0] == path) {
			t.Errorf("process %q has arguments %q", p.Name, p.Args)
		}
	}
}

// TestRestless has a process that has another name each time it is looked at: in the end that is one gap, and it
// is read whole.
func TestRestless(t *testing.T) {
	c := start(t, "restless", nil, nil)
	waitFor(t, "it changed while it was looked at", func() bool {
		s := openSnapshot(t, openHost(t))
		p := readProcess(t, s, c.pid)
		if len(p.Args) == 0 || len(p.Descriptors) < 3 {
			t.Errorf("process %+v", p)
		}
		g := gapsOf(s, c.pid)
		if len(g) > 1 || len(g) == 1 && g[0] != "process: "+programChanged {
			t.Errorf("gaps %q", g)
		}
		return len(g) == 1
	})
}

// TestReusedPID checks that what is read of a process is never of the next one with its pid.
func TestReusedPID(t *testing.T) {
	c := start(t, "hold", nil, nil)
	s := openSnapshot(t, openHost(t))
	d, err := openProc(s.root, c.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	c.end()
	if b, err := d.read("stat"); !gone(err) {
		t.Errorf("stat of a process that ended: %q, %v", b, err)
	}
	if _, err := d.link("exe"); !gone(err) {
		t.Errorf("exe of a process that ended: %v", err)
	}
}

func TestThreadWithOwnTable(t *testing.T) {
	l := listen(t, unix.AF_INET, loopback4, 0, 1)
	c := start(t, "threads", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_TO="+localOf(t, l).String()) })
	r := reportOf(t, c)
	srv := accept(t, l)
	h := openHost(t)
	sock, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: remoteOf(t, srv), Remote: localOf(t, srv)})
	if err != nil {
		t.Fatal(err)
	}
	s := openSnapshot(t, h)
	hs, err := s.Holders(t.Context(), sock.Object)
	if err != nil || len(hs) != 1 || hs[0].PID != c.pid || !slices.Equal(hs[0].FDs, []int{r.FD}) {
		t.Errorf("holders of a thread's socket: %+v, %v; want process %d, descriptor %d", hs, err, c.pid, r.FD)
	}
	p := readProcess(t, s, c.pid)
	i := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == sock.Object })
	if i < 0 {
		t.Fatalf("the process lacks its thread's socket %q: %+v", sock.Object, p.Descriptors)
	}
	if d := p.Descriptors[i]; d.Kind != host.TCP || d.Direction != host.Outbound || d.Peer != objectOfFile(t, srv) {
		t.Errorf("the thread's socket: %+v", d)
	}
	i = slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Kind == host.Pipe && slices.Contains(d.FDs, 100) })
	if i < 0 {
		t.Fatal("the process lacks its thread's pipe")
	}
	hs, err = s.Holders(t.Context(), p.Descriptors[i].Object)
	if err != nil || len(hs) != 1 || hs[0].PID != c.pid || hs[0].Mode != host.Write || !slices.Equal(hs[0].FDs, []int{100}) {
		t.Errorf("holders of the thread's pipe: %+v, %v; want one that writes, by descriptor 100", hs, err)
	}
}

func TestLeaderless(t *testing.T) {
	c := start(t, "leaderless", nil, nil)
	r := reportOf(t, c)
	s := openSnapshot(t, openHost(t))
	o := object{socketObject, 0, r.Socket}.name()
	hs, err := s.Holders(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p := readProcess(t, s, c.pid)
	gaps := gapsOf(s, c.pid)
	if os.Geteuid() != 0 && len(hs) == 0 {
		// The kernel shows the threads of a zombie to root alone.
		if len(gaps) == 0 {
			t.Error("neither a holder nor a gap")
		}
		return
	}
	if len(hs) != 1 || hs[0].PID != c.pid || !slices.Contains(hs[0].FDs, r.FD) {
		t.Errorf("holders of a socket of a thread whose leader has ended: %+v; want process %d", hs, c.pid)
	}
	if !slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == o && d.Kind == host.Unix && d.Peer != "" }) {
		t.Errorf("the process lacks the socket: %+v", p.Descriptors)
	}
	if !slices.ContainsFunc(gaps, func(g string) bool { return strings.HasPrefix(g, "process: it has ended") }) {
		t.Errorf("gaps %q do not say that the process has ended", gaps)
	}
}

func TestHiddenArguments(t *testing.T) {
	long := strings.Repeat("x", 3*os.Getpagesize())
	c := start(t, "hidden", nil, func(cmd *exec.Cmd) {
		cmd.Args = []string{"hidden", long}
		cmd.Env = append(cmd.Env, "PADDING="+long)
	})
	s := openSnapshot(t, openHost(t))
	p := readProcess(t, s, c.pid)
	if len(p.Args) != 2 || p.Args[0] != "hidden" || len(p.Args[1]) >= len(long) || p.Exe == "" || len(p.Descriptors) == 0 {
		t.Errorf("a process without a part of its arguments: %d of them, %d descriptors", len(p.Args), len(p.Descriptors))
	}
	g := gapsOf(s, c.pid)
	for _, what := range []string{"arguments: ", "environment: "} {
		if !slices.ContainsFunc(g, func(g string) bool { return strings.HasPrefix(g, what) && strings.Contains(g, " octets can be read") }) {
			t.Errorf("gaps %q lack %q", g, what)
		}
	}
}

// TestBlocked has programs that cannot be read in time. That their file system does not answer is played by
// a lock that reading them needs.
func TestBlocked(t *testing.T) {
	limit := memoryTimeout
	memoryTimeout = 250 * time.Millisecond
	defer func() { memoryTimeout = limit }()
	c := start(t, "hold", nil, nil)
	h := openHost(t)
	h.exes.mu.Lock()
	var release sync.Once
	unlock := func() { release.Do(h.exes.mu.Unlock) }
	defer unlock()
	why := func(ctx context.Context) string {
		s := openSnapshot(t, h)
		p, err := s.Process(ctx, c.pid)
		if err != nil || p.RUID == nil || p.Args != nil || p.Exe != "" {
			t.Errorf("a process that blocks: %+v, %v", p, err)
		}
		for _, g := range s.Gaps() {
			if g.PID == c.pid && g.What == "arguments, environment and program" {
				return g.Why
			}
		}
		return ""
	}
	if got := why(t.Context()); !strings.Contains(got, "did not end in time") {
		t.Errorf("gap after a timeout: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(memoryReadings) {
		why(ctx) // each leaves one reading behind
	}
	if got := why(t.Context()); !strings.Contains(got, "too many") {
		t.Errorf("gap when all readings are stuck: %q", got)
	}
	unlock()
	memoryTimeout = limit
	waitFor(t, "no reading is stuck", func() bool { return len(memoryReadings) == 0 })
	if p := readProcess(t, openSnapshot(t, h), c.pid); p.ExeSHA256 == "" || p.Args == nil {
		t.Errorf("a process that blocks no more: %+v", p)
	}
}

// TestRefusedFile has a process with a file at a low number about which the kernel lets nobody ask: what
// it holds at higher ones must not be hidden by that.
func TestRefusedFile(t *testing.T) {
	needRoot(t)
	c := start(t, "fuse", nil, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "STOPD_TEST_DIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	r := reportOf(t, c)
	s := openSnapshot(t, openHost(t))
	o := object{socketObject, 0, r.Socket}.name()
	p := readProcess(t, s, c.pid)
	if !slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == o && d.Kind == host.Unix && d.Peer != "" }) {
		t.Errorf("the socket after the refused file is missing: %+v", p.Descriptors)
	}
	if !slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, 50) && d.Kind == "other" && d.Name != "" }) {
		t.Errorf("the refused file is missing: %+v", p.Descriptors)
	}
	if g := gapsOf(s, c.pid); len(g) == 0 {
		t.Error("no gap says that a file was refused")
	}
	if hs, err := s.Holders(t.Context(), o); err != nil || len(hs) != 1 || hs[0].PID != c.pid {
		t.Errorf("holders of the socket after the refused file: %+v, %v", hs, err)
	}
}

// TestSnapshotReadsOnce changes a process between two questions of one look.
func TestSnapshotReadsOnce(t *testing.T) {
	h := openHost(t)
	s := openSnapshot(t, h)
	path := t.TempDir() + "/s"
	has := func(s *snapshot) bool {
		return slices.ContainsFunc(readProcess(t, s, os.Getpid()).Descriptors, func(d host.Descriptor) bool { return d.Path == path })
	}
	if has(s) {
		t.Error("a look shows what is not there yet")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if has(s) {
		t.Error("one look shows a process in two states")
	}
	if !has(openSnapshot(t, h)) {
		t.Error("the next look does not show the process as it is now")
	}
}
