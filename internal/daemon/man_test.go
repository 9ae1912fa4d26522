package daemon

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestManual holds man/stopd.toml.5 to the template: the same keys, in the same order, with the same
// defaults.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../man/stopd.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	want := templateKeys(string(Template(Defaults())))
	if len(want) < 30 {
		t.Errorf("the template has %d keys: %q", len(want), want)
	}
	if d := cmp.Diff(want, manualKeys(string(b))); d != "" {
		t.Errorf("keys of the template (-) and of the manual (+):\n%s", d)
	}
}

// Keys that the manual does not mark [r] take a restart, and no others.
func TestManualRestart(t *testing.T) {
	b, err := os.ReadFile("../../man/stopd.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"witness"} // its keys have no default, and so no mark
	section := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if m := manualSection.FindStringSubmatch(line); m != nil {
			section = m[1] + "."
		} else if m := manualKey.FindStringSubmatch(line); m != nil && m[3] == "" {
			want = append(want, section+m[1])
		}
	}
	slices.Sort(want)
	c := Defaults()
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(c.atStart()))); d != "" {
		t.Errorf("keys without [r] (-) and those that take a restart (+):\n%s", d)
	}
	now := c
	now.Listen, now.Reply.OptIn, now.Limits.Burst = []string{"[::1]:113"}, true, 1
	if d := cmp.Diff([]string{"listen", "reply.opt_in"}, c.fixedIn(now)); d != "" {
		t.Error(d)
	}
}

// templateKeys lists "section.key = default".
func templateKeys(text string) []string {
	var keys []string
	section := ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]") + "."
		} else if k, v, ok := strings.Cut(line, "="); ok {
			keys = append(keys, section+strings.TrimSpace(k)+" = "+strings.TrimSpace(v))
		}
	}
	return keys
}

var (
	manualSection = regexp.MustCompile(`^\.Ss \[(\w+)\]$`)
	manualKey     = regexp.MustCompile(`^\.It Ic (\w+) No = Li (.*?)( Bq r)?$`)
)

func manualKeys(text string) []string {
	var keys []string
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(text, `\(dq`, `"`)) {
		line = strings.TrimSuffix(line, "\n")
		if m := manualSection.FindStringSubmatch(line); m != nil {
			section = m[1] + "."
		} else if m := manualKey.FindStringSubmatch(line); m != nil {
			keys = append(keys, section+m[1]+" = "+m[2])
		}
	}
	return keys
}
