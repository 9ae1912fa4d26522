package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The faults of internal/daemon's TestFaults, on a host with an intruder's relay: asked about, it has a previous host, which
// answers.
func TestFaults(t *testing.T) { daemonTest(t, "TestFaults", 15*time.Minute, time.Hour) }

// So with the steady load of its TestSteady.
func TestSteady(t *testing.T) { daemonTest(t, "TestSteady", 15*time.Minute, 40*time.Minute) }

// daemonTest runs a test of internal/daemon on b, about a connection that has a previous host.
func daemonTest(t *testing.T, name string, limit, soak time.Duration) {
	if os.Getenv("STOPD_SOAK") != "" {
		limit = soak
	}
	s := theWorld(t).stageFor(t, limit)
	program := filepath.Join(t.TempDir(), "daemon.test")
	if out, err := exec.CommandContext(s.ctx, "go", "test", "-c", "-o", program, "../internal/daemon").CombinedOutput(); err != nil {
		t.Fatalf("build the daemon's tests: %v: %s", err, out)
	}
	s.must(s.b.Host.Install(program, "/usr/local/bin/daemon.test"))
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	about := fmt.Sprintf("STOPD_TEST_FAULTS=%s %s", tr.out.local, tr.out.remote)
	out, err := s.b.Host.Run(s.ctx, "env", about, "STOPD_SOAK="+os.Getenv("STOPD_SOAK"), "/usr/local/bin/daemon.test",
		"-test.run", name, "-test.v", "-test.parallel", "8", "-test.timeout", limit.String())
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
