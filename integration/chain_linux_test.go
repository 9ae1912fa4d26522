package integration

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/report"
)

// Thesis section 3.4: nobody can keep a host that an intruder has taken over from lying about itself. Where its neighbour
// tells otherwise, the chain shows it. The reports are real ones, and one of them is altered as its daemon could have
// written it.
func TestLyingHost(t *testing.T) {
	s := theWorld(t).stage(t)
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through("nc.traditional", "nc.traditional")
	b := s.asked("SV_REC", tr.out, true)
	a := s.previousToken(s.a, b)
	if said, heard := a.Report.Connection.Bytes, b.Report.Previous[0].Bytes; said.Sent < uint64(len(s.word)) || heard.Received < uint64(len(s.word)) {
		t.Errorf("a has sent %+v and b received %+v: the intruder's word has %d octets", said, heard, len(s.word))
	}
	innocent := netip.AddrPortFrom(s.d.Host.Addr(), 4711)
	for name, tt := range map[string]struct {
		lie  func(a, b *report.Redeemed)
		want []string // kinds of contradictions
	}{
		"none":                 {func(_, _ *report.Redeemed) {}, nil},
		"direction":            {func(a, _ *report.Redeemed) { a.Report.Connection.Direction = host.Inbound }, []string{chain.AboutDirection}},
		"another's connection": {func(a, _ *report.Redeemed) { a.Report.Request.Local = innocent }, []string{chain.AboutAddress}},
		"who asked":            {func(a, _ *report.Redeemed) { a.Report.Request.Requester = innocent.Addr() }, []string{chain.AboutRequest}},
		"session":              {func(a, _ *report.Redeemed) { a.Report.Request.SID = "1" }, []string{chain.AboutRequest}},
		"bytes":                {func(a, _ *report.Redeemed) { a.Report.Connection.Bytes.Sent = 1 }, []string{chain.AboutBytes}},
		"time": {func(a, b *report.Redeemed) {
			a.Report.Request.Time = a.Report.Request.Time.Add(time.Hour)
			a.Report.Host.Clock, b.Report.Host.Clock = &host.Clock{Synchronised: true}, &host.Clock{Synchronised: true}
		}, []string{chain.AboutTime}},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := a, b
			connection := *a.Report.Connection
			one.Report.Connection = &connection
			tt.lie(&one, &two)
			c := chain.Build(chain.Of(one, two))
			var kinds []string
			for _, x := range c.Contradictions {
				kinds = append(kinds, x.Kind)
			}
			if d := cmp.Diff(tt.want, kinds); d != "" {
				t.Errorf("contradictions (-want +got):\n%s%+v", d, c.Contradictions)
			}
			// The other host's word stands: who was asked is on the path, and nobody else.
			if len(c.Paths) != 1 || len(c.Hosts) != 3 || c.Hosts[0].Name != "a" || c.Hosts[1].Name != "b" {
				t.Errorf("the path is another:\n%s", chain.Text(c))
			}
			if got := strings.Contains(chain.SVG(c), `class="badge"`); got != (tt.want != nil) {
				t.Errorf("the picture shows a contradiction: %t", got)
			}
			// That b's two connections belong together is its word alone, whoever lies.
			if n := strings.Count(chain.Text(c), "is this host's word alone"); n != 1 || len(c.Joins) != 1 || c.Joins[0].Token != b.Token {
				t.Errorf("joined %d times: %+v", n, c.Joins)
			}
		})
	}
}

// Graphviz itself reads what is written for it, and draws every host and every connection.
func TestGraphviz(t *testing.T) {
	netlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	layer, err := netlab.Packages(ctx, "graphviz")
	if err != nil {
		t.Fatal(err)
	}
	plugins, err := filepath.Glob(filepath.Join(layer, "usr/lib/*/graphviz"))
	if err != nil || len(plugins) != 1 {
		t.Fatalf("plugins are in %q: %v", plugins, err)
	}
	// It keeps its list of plugins beside them.
	own := t.TempDir()
	if err := os.CopyFS(own, os.DirFS(plugins[0])); err != nil {
		t.Fatal(err)
	}
	dot := func(args ...string) string {
		cmd := exec.CommandContext(ctx, filepath.Join(layer, "usr/bin/dot"), args...)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(plugins[0]), "GVBINDIR="+own)
		var out, warnings strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &warnings
		if err := cmd.Run(); err != nil || warnings.Len() > 0 {
			t.Fatalf("dot %q: %v\n%s", args, err, warnings.String())
		}
		return out.String()
	}
	dot("-c")
	files, err := filepath.Glob("../chain/testdata/forms/*.dot")
	if err != nil || len(files) < 2 {
		t.Fatalf("%q: %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		drawn := dot("-Tsvg", f)
		for what, n := range map[string]int{`class="edge"`: strings.Count(string(b), " -> k"), `class="cluster"`: strings.Count(string(b), "subgraph cluster_")} {
			if got := strings.Count(drawn, what); got != n || n == 0 {
				t.Errorf("%s: %d of %s, want %d", f, got, what, n)
			}
		}
		if !strings.Contains(drawn, ">reached<") {
			t.Errorf("%s: no label", f)
		}
	}
}
