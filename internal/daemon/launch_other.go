//go:build !unix

package daemon

import (
	"net"
	"os"
	"os/exec"

	"github.com/stopd/stopd/internal/optin"
)

// Here the daemon starts no processes: it cannot see what they would tell of.

var self, _ = os.Executable()

func keepDescriptors() error { return nil }

func unprivileged() int { return -1 }

func inheritable() []string { return nil }

// ends are those of the links between roles.
type ends struct{}

func (ends) close() {}

func joinAll() (ends, error) { return ends{}, errSystem }

func (*supervisor) launch(role, ends) (*child, error) { return nil, errSystem }

func startRestricted(*exec.Cmd, role, Config) error { return errSystem }

func confine(role, started, *os.File) []string { return nil }

func filesOf(optin.Question) (optin.Files, error) { return optin.Files{}, errSystem }

func sendListener(*os.File, net.Listener) error { return errSystem }

func receiveListener(*os.File) (net.Listener, error) { return nil, errSystem }

var tried []string // nothing

func prove(trial) []string { return nil }
