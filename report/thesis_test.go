package report_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

var update = flag.Bool("update", false, "write the golden files")

// thesis is the questions of Appendix B. Where the thesis contradicts itself the recordings, and so the golden
// files, have what is right: testdata/thesis/README.md says what and why.
var thesis = []struct {
	name    string
	request report.Request
}{
	{"b1", report.Request{
		Time: time.Date(2001, 4, 1, 12, 1, 0, 0, time.UTC), Type: "SV_REC", SID: "92847523456",
		Local: netip.MustParseAddrPort("2.2.2.2:968"), Remote: netip.MustParseAddrPort("3.3.3.3:23"),
		Requester: netip.MustParseAddr("3.3.3.3"),
	}},
	{"b2", report.Request{
		Time: time.Date(2001, 4, 1, 1, 1, 0, 0, time.UTC), Type: "SV",
		Local: netip.MustParseAddrPort("2.2.2.2:8526"), Remote: netip.MustParseAddrPort("3.3.3.3:9010"),
		Requester: netip.MustParseAddr("3.3.3.3"),
	}},
	// An intrusion detection system asks on behalf of 1.1.1.1.
	{"b3", report.Request{
		Time: time.Date(2001, 4, 1, 2, 1, 0, 0, time.UTC), Type: "SV_REC", SID: "1485730682",
		Local: netip.MustParseAddrPort("2.2.2.2:1885"), Remote: netip.MustParseAddrPort("1.1.1.1:8000"),
		Requester: netip.MustParseAddr("3.3.3.3"), OnBehalf: true,
	}},
}

// examined answers a request from a recording, and leaves out what differs from one report to the next.
func examined(t testing.TB, file string, q report.Request) report.Report {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	h := &host.Replay{Recording: rec}
	s, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: q.Local, Remote: q.Remote})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := trace.Run(t.Context(), snap, trace.Question{Socket: s, Host: rec.Facts, OnBehalf: q.OnBehalf}, trace.Defaults)
	r := report.Report{
		Version: report.Version, Kind: report.KindSV, Salt: strings.Repeat("0", 64),
		Tool: report.Tool{Name: "stopd", Version: "0.0.0", Sources: []string{"recording"}},
		Host: rec.Facts, Request: q,
		Connection: &report.Connection{Protocol: s.Protocol, State: s.State, Direction: s.Direction,
			DirectionSource: s.DirectionSource, UID: s.UID, Object: s.Object, Owners: found.Owners},
		Processes: found.Processes, Channels: found.Channels, Previous: found.Previous, Users: found.Users, Gaps: found.Gaps,
	}
	for _, u := range found.Users {
		if u.UID == s.UID {
			r.Connection.User = u.Name
		}
	}
	return r
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestThesis(t *testing.T) {
	for _, c := range thesis {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join("..", "testdata", "thesis", c.name)
			r := examined(t, path+".json", c.request)
			b := report.Encode(r)
			golden(t, path+".report.json", b)
			golden(t, path+".txt", []byte(report.Text(r)))

			again, err := report.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(report.Text(r), report.Text(again)); d != "" {
				t.Errorf("text of the report as it was read again (-written +read):\n%s", d)
			}
		})
	}
}
