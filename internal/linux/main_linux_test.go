package linux

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// roleEnv makes the test program one of the roles: a process for a test to look at.
const roleEnv = "STOPD_TEST_ROLE"

// roles are what the processes do; each prints a line when its arrangement stands, and ends with its input.
var roles = map[string]func() (string, error){
	"hold":       func() (string, error) { return "", nil },
	"hostile":    hostileRole,
	"threads":    threadsRole,
	"leaderless": leaderlessRole,
	"hidden":     hiddenRole,
	"fuse":       fuseRole,
	"netns":      netnsRole,
	"many":       manyRole,
	"memory":     memoryRole,
	"crowd":      crowdRole,
	"overlay":    overlayRole,
	"waiting":    waitingRole,
	"ipc":        ipcRole,
	"tty":        ttyRole,
	"restless":   restlessRole,
	"ring":       ringRole,
	"session":    sessionRole,
	"tracer":     tracerRole,
	"server":     serverRole,
	"named":      namedRole,
	"looker":     lookerRole,
	"relay":      relayRole,
}

func init() {
	switch os.Getenv(roleEnv) {
	case "hostile", "leaderless", "threads", "tracer", "restless":
		runtime.LockOSThread() // they are about the first thread, or about another
	}
}

func TestMain(m *testing.M) {
	// What this process was given by accident it does not give on: children hold what a test says.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	memoryTimeout = time.Minute // of a busy machine
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	line, err := roles[role]()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	say(line)
	waitInput()
}

func say(line string) { fmt.Println(line) }

func waitInput() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A child is a process in a role.
type child struct {
	pid   int
	line  string // what it said
	cmd   *exec.Cmd
	stdin io.Closer
}

// start starts a child that holds the given files as descriptors 3, 4 and so on, waits until its
// arrangement stands, and ends it with the test.
func start(t testing.TB, role string, files []*os.File, change func(*exec.Cmd)) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	if change != nil {
		change(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	t.Cleanup(c.end)
	if c.line, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("%s does not say that it is ready: %v", role, err)
	}
	c.line = strings.TrimSuffix(c.line, "\n")
	return c
}

// end ends the child; a second call does nothing.
func (c *child) end() {
	c.stdin.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			t.Fatalf("no state came in which %s", what)
		case <-time.After(pause):
		}
	}
}

// needRoot skips a test that needs root, unless the environment says that it must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("STOPD_REQUIRE_NETNS") == "1" {
		t.Fatal("STOPD_REQUIRE_NETNS=1 and not root")
	}
	t.Skip("needs root")
}

func openHost(t testing.TB) *Host {
	t.Helper()
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func openSnapshot(t testing.TB, h *Host) *snapshot {
	t.Helper()
	s, err := h.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*snapshot)
}

func readProcess(t testing.TB, s *snapshot, pid int) host.Process {
	t.Helper()
	p, err := s.Process(context.Background(), pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// gapsOf returns what and why of the gaps of one process; 0 is those of none.
func gapsOf(s host.Snapshot, pid int) []string {
	var out []string
	for _, g := range s.Gaps() {
		if g.PID == pid {
			out = append(out, g.What+": "+g.Why)
		}
	}
	return out
}
