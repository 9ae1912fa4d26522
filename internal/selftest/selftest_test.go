//go:build unix

package selftest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
)

const childEnv = "STOPD_SELFTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if Wait() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// On a host that shows nothing each check says so, and nothing is left of what was made. On one that does, cmd/stopd tests it.
func TestBlindHost(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var child *exec.Cmd
	start := func() *exec.Cmd {
		child = &exec.Cmd{Path: self, Args: []string{self}, Env: append(os.Environ(), childEnv+"=1")}
		return child
	}
	if err := Run(t.Context(), &host.Replay{}, start, &out); !errors.Is(err, ErrFailed) {
		t.Errorf("%v", err)
	}
	if child.ProcessState == nil || !child.ProcessState.Success() {
		t.Errorf("the child: %v", child.ProcessState)
	}
	for line := range strings.Lines(out.String()) {
		what, said, _ := strings.Cut(strings.TrimSpace(line), ": ")
		// Who sees nothing sees no connection that is not there, and no child that has ended.
		want := "NO: "
		if what == "nobody's connection" || what == "that the child has ended" {
			want = "yes"
		}
		if !strings.HasPrefix(said, want) && !strings.HasPrefix(said, "not tried") {
			t.Errorf("%q", line)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != len(checks)+1 {
		t.Errorf("%d lines:\n%s", n, &out)
	}
}

// A child that does not start is an error.
func TestNoChild(t *testing.T) {
	err := Run(t.Context(), &host.Replay{}, func() *exec.Cmd { return &exec.Cmd{Path: "/nonexistent"} }, new(bytes.Buffer))
	if err == nil || errors.Is(err, ErrFailed) {
		t.Error(err)
	}
	err = Run(t.Context(), &host.Replay{}, func() *exec.Cmd { return &exec.Cmd{Path: "/bin/true"} }, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "it has ended") {
		t.Error(err)
	}
}
