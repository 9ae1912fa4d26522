package stop_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// imports is the table of ARCHITECTURE.md: what each package may import of this module. A package that is
// not here is a new room of the house, and has to be entered there and here.
var imports = map[string][]string{
	"":                          {},
	"host":                      {},
	"host/hosttest":             {"host"},
	"trace":                     {"host"},
	"report":                    {"", "host", "trace"},
	"evidence":                  {"", "evidence/translog"},
	"evidence/translog":         {},
	"evidence/translog/rawtest": {},
	"examine":                   {"", "host", "trace", "report"},
	"server":                    {""},
	"chain":                     {"", "host", "trace", "report"},
	"bundle":                    {"", "host", "trace", "report", "evidence", "evidence/translog", "internal/sshsig"},
	"internal/linux":            {"host", "internal/linux/bpf"},
	"internal/linux/bpf":        {},
	"internal/sshsig":           {},
	"internal/netlab":           {},
	"internal/optin":            {},
	"internal/netlab/site":      {"", "host", "trace", "report", "internal/netlab"},
	"internal/netlab/demo":      {"", "host", "trace", "report", "chain", "internal/netlab", "internal/netlab/site"},
	"internal/daemon":           {"", "host", "trace", "report", "evidence", "evidence/translog", "examine", "server", "internal/linux", "internal/linux/bpf", "internal/optin"},
	"cmd/stopd":                 {"*"},
	"cmd/stopctl":               {"*"},
	"examples/identd":           {"*"},
	"bench":                     {"*"},
	"bench/thesis":              {},
	"integration":               {"*"},
}

const module = "github.com/stopd/stopd"

// TestImports holds the table over everything that a package depends on, directly or not.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{.ImportPath}} {{join .Deps \" \"}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 0 || !ours(f[0]) {
			continue
		}
		seen++
		name := strings.TrimPrefix(strings.TrimPrefix(f[0], module), "/")
		allowed, ok := imports[name]
		if !ok {
			t.Errorf("package %q is not in the table", name)
			continue
		}
		for _, dep := range f[1:] {
			short := strings.TrimPrefix(strings.TrimPrefix(dep, module), "/")
			if ours(dep) && !slices.Contains(allowed, "*") && !slices.Contains(allowed, short) {
				t.Errorf("package %q imports %q", name, short)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d packages were looked at", seen)
	}
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
