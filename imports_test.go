package stop_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const module = "github.com/stopd/stopd"

// imports reads the table of ARCHITECTURE.md: what each package may import of this module.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(cell string) []string {
		cell, _, _ = strings.Cut(cell, "(") // what it declares
		if cell = strings.TrimSpace(cell); cell == "nothing of ours" {
			return nil
		}
		return strings.Split(cell, ", ")
	}
	table := map[string][]string{}
	_, text, _ := strings.Cut(string(b), "| package | may import |\n|---|---|\n")
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			break
		}
		for _, name := range names(cells[1]) {
			table[name] = names(cells[2])
		}
	}
	return table
}

// TestImports holds the table over everything that a package depends on, directly or not. A package that is not in it is a
// new room of the house; what it allows and nobody does is not so any more.
func TestImports(t *testing.T) {
	table := imports(t)
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{.ImportPath}} {{join .Deps \" \"}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 0 || !ours(f[0]) {
			continue
		}
		name := short(f[0])
		seen[name] = true
		allowed, ok := table[name]
		if !ok {
			t.Errorf("package %q is not in the table", name)
			continue
		}
		if slices.Equal(allowed, []string{"all"}) {
			continue
		}
		var got []string
		for _, dep := range f[1:] {
			if ours(dep) {
				got = append(got, short(dep))
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(slices.Sorted(slices.Values(allowed)), got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s imports (-as the table has it +as it is):\n%s", name, d)
		}
	}
	for name := range table {
		if !seen[name] {
			t.Errorf("package %q of the table does not exist", name)
		}
	}
}

// short is how the table names a package of this module.
func short(path string) string {
	if path == module {
		return "stop"
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// TestPureImports holds the first invariant: what decides does no input or output.
func TestPureImports(t *testing.T) {
	for _, pkg := range []string{"trace", "report", "chain", "bundle"} {
		out, err := exec.Command("go", "list", "-f", `{{join .Imports " "}}`, "./"+pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, dep := range strings.Fields(string(out)) {
			if slices.Contains([]string{"os", "net", "os/exec", "syscall", "golang.org/x/sys/unix"}, dep) {
				t.Errorf("package %q imports %q", pkg, dep)
			}
		}
	}
}
