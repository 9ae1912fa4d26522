package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/stopd/stopd/internal/netlab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stopd": main})
}

// condition knows [tmpfs]: whether /dev/shm is one, as it is nearly everywhere on Linux.
func condition(name string) (bool, error) {
	if name != "tmpfs" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	b, err := os.ReadFile("/proc/mounts")
	return err == nil && bytes.Contains(b, []byte(" /dev/shm tmpfs ")), nil
}

func TestScripts(t *testing.T) {
	// The store refuses a file system in memory, as /tmp may be.
	root, err := os.MkdirTemp("/var/tmp", "stopd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(root)
		// One store of the scripts is in memory, whence the name.
		if err := netlab.DropKeys(func(name string) bool {
			return strings.Contains(name, root+"/") || strings.Contains(name, "/stopd-is-not-there/")
		}); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{Dir: "testdata/script", WorkdirRoot: root, RequireExplicitExec: true, Condition: condition, Setup: func(e *testscript.Env) error {
		e.Setenv("GORACE", "atexit_sleep_ms=0")
		return nil
	}})
}
