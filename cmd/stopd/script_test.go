package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"stopd": main})
}

func TestScripts(t *testing.T) {
	// The store refuses a file system in memory, as /tmp may be.
	root, err := os.MkdirTemp("/var/tmp", "stopd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	testscript.Run(t, testscript.Params{Dir: "testdata/script", WorkdirRoot: root, RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		e.Setenv("GORACE", "atexit_sleep_ms=0")
		return nil
	}})
}
