package linux

import (
	"os/exec"
	"strings"
	"testing"
)

// A process that cannot be read has ended, or is hidden.
func TestWhyUnread(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if why := whyUnread(cmd.Process.Pid); !strings.HasPrefix(why, "it runs") {
		t.Errorf("of one that runs it says %q", why)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if why := whyUnread(cmd.Process.Pid); !strings.HasPrefix(why, "it ended") {
		t.Errorf("of one that has ended it says %q", why)
	}
}
