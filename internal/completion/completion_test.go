package completion

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// example has a flag of each kind, and words that shells read as their own.
func example() Program {
	one := flag.NewFlagSet("", flag.ContinueOnError)
	one.String("type", "", "the `type`: ID, SV (more) or ID_REC")
	one.String("dir", "", "somebody's [own] `directory`: $HOME, say")
	one.String("file", "", "a `file`")
	one.Bool("json", false, "print a JSON object")
	return Program{Name: "example", Commands: []Command{{"ask", "ask: it's `one`", one}, {"audit", "verify", flag.NewFlagSet("", flag.ContinueOnError)}}}
}

// bash completes what the words before allow.
func TestBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c.bash"), []byte(example().Write("bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "under"), 0o700); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"example ":              "ask audit help",
		"example a":             "ask audit",
		"example au":            "audit",
		"example ask -":         "-dir -file -json -type",
		"example ask -json -t":  "-type",
		"example ask -type ":    "ID SV ID_REC",
		"example ask -type S":   "SV",
		"example ask -dir u":    "under",
		"example ask -file -":   "", // names of files, by readline
		"example ask x":         "",
		"example audit -":       "",
		"example neither -json": "",
	} {
		words := strings.Split(line, " ")
		script := `source ./c.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _example; echo "${COMPREPLY[*]}"`
		cmd := exec.Command(bash, append([]string{"-euc", script, "bash"}, words...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if d := cmp.Diff(want, strings.TrimSpace(string(out))); d != "" || err != nil {
			t.Errorf("%q: %v: want (-) and got (+):\n%s", line, err, d)
		}
	}
}

// A description gives values only where it is a list of them.
func TestValues(t *testing.T) {
	for says, want := range map[string][]string{
		"the request type: ID, SV, ID_REC or SV_REC":                       {"ID", "SV", "ID_REC", "SV_REC"},
		"json, text, raw (the report's exact bytes), ecs or stix":          {"json", "text", "raw", "ecs", "stix"},
		"follow a log, as JSON or in columns (may be repeated)":            nil,
		"a file, or unix:PATH or unixgram:PATH":                            nil,
		"json or text":                                                     nil,
		"validate the configuration, print what the daemon will see, exit": nil,
	} {
		if d := cmp.Diff(want, valuesOf(says)); d != "" {
			t.Errorf("%q (-want +got):\n%s", says, d)
		}
	}
}
