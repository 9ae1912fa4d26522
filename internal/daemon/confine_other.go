//go:build !linux

package daemon

import (
	"os"
	"os/exec"

	"github.com/stopd/stopd/internal/optin"
)

// On other systems the daemon does not answer yet, and nothing is given up.

var self, _ = os.Executable()

func unprivileged() int { return -1 }

func startRestricted(cmd *exec.Cmd, _ role, _ Config) error { return cmd.Start() }

func filesOf(optin.Question) (optin.Files, error) { return optin.Files{}, errSystem }

func confine(_ role, _ started, _ *os.File) []string { return nil }

func bindsLow() bool { return false }

var tried []string // nothing

func prove(trial) []string { return nil }
