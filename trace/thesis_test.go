package trace

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

func recorded(t testing.TB, file string) *host.Replay {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	return &host.Replay{Recording: rec}
}

func ask(t testing.TB, h *host.Replay, local, remote string, onBehalf bool) Result {
	t.Helper()
	s, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)})
	if err != nil {
		t.Fatal(err)
	}
	return runSnapshot(t, h, Question{Socket: s, Host: h.Recording.Facts, OnBehalf: onBehalf})
}

// TestThesis is the order of processes and the previous hosts of Appendix B; what the recordings correct in it is
// in testdata/thesis/README.md.
func TestThesis(t *testing.T) {
	tests := []struct {
		file, local, remote string
		onBehalf            bool
		want                summary
	}{
		{"b1.json", "2.2.2.2:968", "3.3.3.3:23", false, summary{
			Owners: []int{8339},
			Processes: []string{"8339 primary owner", "8338 primary parent 8339", "8337 primary parent 8338", "8000 primary parent 8337",
				"1 primary parent 8000", "0 primary parent 1"},
			Channels: none, Previous: []string{"1.1.1.1:616 inbound"}, Gaps: none,
		}},
		{"b2.json", "2.2.2.2:8526", "3.3.3.3:9010", false, summary{
			Owners: []int{26776},
			Processes: []string{"26776 primary owner", "22614 primary parent 26776", "1 primary parent 22614", "0 primary parent 1",
				"25697 resolved channel 26776", "7226 resolved parent 25697", "23690 resolved parent 7226", "10236 resolved channel 25697",
				"324 resolved channel 7226", "10861 resolved parent 324", "12596 resolved channel 26776", "18587 resolved parent 12596",
				"11995 resolved channel 18587", "26780 resolved channel 11995"},
			Previous: []string{"1.1.1.1:1874 inbound"}, Gaps: none,
		}},
		{"b3.json", "2.2.2.2:1885", "1.1.1.1:8000", true, summary{
			Owners: []int{10212},
			Processes: []string{"10212 primary owner", "9818 primary parent 10212", "1 primary parent 9818", "0 primary parent 1",
				"10213 resolved channel 10212", "10214 resolved channel 10213"},
			Channels: []string{"pipe 10212 w, 10213 r", "pipe 10213 w, 10214 r"},
			Previous: []string{"1.1.1.1:8001 unknown-direction"}, Gaps: none,
		}},
		// "The same process data would have been saved, but in the opposite order" (section 3.5.3).
		{"b3.json", "2.2.2.2:1886", "1.1.1.1:8001", true, summary{
			Owners: []int{10214},
			Processes: []string{"10214 primary owner", "9818 primary parent 10214", "1 primary parent 9818", "0 primary parent 1",
				"10213 resolved channel 10214", "10212 resolved channel 10213"},
			Previous: []string{"1.1.1.1:8000 unknown-direction"}, Gaps: none,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file+" "+tt.remote, func(t *testing.T) {
			r := ask(t, recorded(t, filepath.Join("..", "testdata", "thesis", tt.file)), tt.local, tt.remote, tt.onBehalf)
			if d := cmp.Diff(tt.want, summarize(r, tt.want)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// The reverse telnet where the system tells directions: both connections were opened from here. Asked by the
// other end itself, the asked connection is known to it; asked on its behalf, both are candidates.
func TestReverseTelnet(t *testing.T) {
	for onBehalf, want := range map[bool][]string{
		false: {"1.1.1.1:8001 joined-outbound"},
		true:  {"1.1.1.1:8001 joined-outbound", "1.1.1.1:8000 joined-outbound"},
	} {
		h := recorded(t, filepath.Join("..", "testdata", "thesis", "b3.json"))
		for i := range h.Sockets {
			h.Sockets[i].Direction = host.Outbound
		}
		for _, p := range h.Processes {
			for i, d := range p.Descriptors {
				if d.Kind == host.TCP && !d.Listening() {
					p.Descriptors[i].Direction = host.Outbound
				}
			}
		}
		got := summarize(ask(t, h, "2.2.2.2:1885", "1.1.1.1:8000", onBehalf), summary{Previous: want})
		if d := cmp.Diff(want, got.Previous); d != "" {
			t.Errorf("on behalf %t (-want +got):\n%s", onBehalf, d)
		}
	}
}
