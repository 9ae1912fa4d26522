package daemon

import (
	"encoding/json"
	"encoding/xml"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// exported are the names of all metrics.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(testMetrics(newServer()), collectors.NewGoCollector())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

var metricName = regexp.MustCompile(`\b(stopd|go|process)_[a-z0-9_]+\b`)

// What alerts and the dashboard ask for is exported, every metric of the daemon's own is on the dashboard, and bounds that
// are named exist.
func TestDeployedMetrics(t *testing.T) {
	names := exported(t)
	bounds := map[string]bool{}
	all, err := newServer().AllCounted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all.Bounds {
		bounds[b.Name] = true
	}
	shown := map[string]bool{}
	for _, file := range []string{"alerts.yml", "grafana.json"} {
		text := string(deployed(t, file))
		for _, name := range metricName.FindAllString(text, -1) {
			if !names[name] {
				t.Errorf("%s has %s, which nobody exports", file, name)
			}
			shown[name] = file == "grafana.json"
		}
		for _, m := range regexp.MustCompile(`bound=\\?"(\w+)`).FindAllStringSubmatch(text, -1) {
			if !bounds[m[1]] {
				t.Errorf("%s has bound %s, which is none", file, m[1])
			}
		}
	}
	for name := range names {
		if strings.HasPrefix(name, "stopd_") && !shown[name] {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(deployed(t, "grafana.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	for i, p := range dashboard.Panels {
		if len(p.Targets) == 0 || !metricName.MatchString(p.Targets[0].Expr) {
			t.Errorf("panel %d shows nothing", i)
		}
	}
}

func deployed(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../deploy/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// docs/operations.md has every event that is logged and every alert, and no other.
func TestOperations(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	said := func(heading string) []string {
		_, text, _ := strings.Cut(string(doc), "\n## "+heading+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		var first []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` ").FindAllStringSubmatch(text, -1) {
			first = append(first, m[1])
		}
		slices.Sort(first)
		return first
	}
	alerts := map[string]bool{}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(deployed(t, "alerts.yml")), -1) {
		alerts[m[1]] = true
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(alerts)), said("Alerts")); d != "" {
		t.Errorf("alerts (-) and docs/operations.md (+):\n%s", d)
	}
	events := map[string]bool{}
	for _, dir := range []string{".", "../prom", "../../server", "../../evidence", "../../evidence/translog"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, m := range regexp.MustCompile(`(?:log|logger)\.(?:Info|Warn|Error|LogAttrs)\((?:context\.Background\(\), slog\.\w+, )?"([^"]+)"`).FindAllSubmatch(text, -1) {
				events[string(m[1])] = true
			}
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(events)), said("Events")); d != "" {
		t.Errorf("events that are logged (-) and docs/operations.md (+):\n%s", d)
	}
}

// What the packing list installs is there, and the script is one of a shell.
func TestDeployedOpenBSD(t *testing.T) {
	list := string(deployed(t, "openbsd/PLIST"))
	named := regexp.MustCompile(`(?m)^@(?:bin|man) (?:s?bin|man)/(\S+)$`).FindAllStringSubmatch(list, -1)
	var got []string
	for _, m := range named {
		got = append(got, m[1])
	}
	want := []string{"stopctl", "stopd"}
	pages, err := filepath.Glob("../../man/*.[1-8]")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		want = append(want, "man"+p[len(p)-1:]+"/"+filepath.Base(p))
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the packing list (-want +got):\n%s", d)
	}
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(string(deployed(t, "openbsd/stopd.rc")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the script: %v: %s", err, out)
	}
}

// The manifest is XML, and starts, stops and refreshes the daemon.
func TestDeployedIllumos(t *testing.T) {
	var m struct {
		Methods []struct {
			Name string `xml:"name,attr"`
			Exec string `xml:"exec,attr"`
		} `xml:"service>exec_method"`
	}
	if err := xml.Unmarshal(deployed(t, "illumos/stopd.xml"), &m); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, x := range m.Methods {
		got[x.Name] = x.Exec
	}
	want := map[string]string{"start": "/usr/local/sbin/stopd -config /etc/stopd/stopd.toml", "stop": ":kill", "refresh": ":kill -HUP"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("methods (-want +got):\n%s", d)
	}
}

// The script of FreeBSD is one of a shell.
func TestDeployedFreeBSD(t *testing.T) {
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(string(deployed(t, "freebsd/stopd.rc")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
