package daemon

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// The systems that the daemon starts on are those that it has a host for; on others it says what it cannot do, in a line.
func TestUnseen(t *testing.T) {
	for _, goos := range []string{"linux", "openbsd", "solaris", "freebsd", "darwin", "windows", "netbsd", "aix"} {
		_, missing := os.Stat("host_" + goos + ".go")
		err := unseen(goos)
		if (err == nil) != (missing == nil) || err != nil && (!errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), goos) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v", goos, err)
		}
	}
	if err := unseen("illumos"); err != nil { // which has Solaris's files
		t.Error(err)
	}
}
