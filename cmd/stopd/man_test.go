package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestManual holds man/stopd.8 to the flags that the program shows.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../man/stopd.8")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "stopd")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	help, err := exec.Command(program, "-h").CombinedOutput()
	if err != nil {
		t.Fatalf("stopd -h: %v\n%s", err, help)
	}
	shown := all(`(?m)^  -(\w+)`, help)
	if len(shown) == 0 {
		t.Errorf("no flags in %q", help)
	}
	for where, pattern := range map[string]string{"synopsis": `(?m)^\.Op Fl (\w+)`, "options": `(?m)^\.It Fl (\w+)`} {
		if d := cmp.Diff(shown, all(pattern, page)); d != "" {
			t.Errorf("flags that are shown (-) and of the manual's %s (+):\n%s", where, d)
		}
	}
}

// all returns what the first group of a pattern matches.
func all(pattern string, text []byte) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
		found[string(m[1])] = true
	}
	return found
}
