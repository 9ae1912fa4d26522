package examine

import (
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// Whoever makes a report too large does not escape it: what takes most is left out, and said to be.
func TestBounded(t *testing.T) {
	process := func(p host.Process) report.Report {
		p.PID = 70
		return report.Report{Version: report.Version, Processes: []trace.Process{{Index: 1, Process: p}}}
	}
	pipe := host.Descriptor{Kind: host.Pipe, Object: "pipe:[1]", Peer: "pipe:[1]"}
	long := strings.Repeat("x", maxReport/10)
	many := func(d host.Descriptor, n int) []host.Descriptor {
		ds := []host.Descriptor{pipe}
		for range n {
			ds = append(ds, d)
		}
		return ds
	}
	tests := []struct {
		name         string
		r            report.Report
		gaps         int
		args, others int
	}{
		{"small", process(host.Process{Args: []string{"a"}, Descriptors: []host.Descriptor{pipe}}), 0, 1, 1},
		{"arguments", process(host.Process{Args: []string{long, long, long, long, long, long, long, long, long, long}, Descriptors: []host.Descriptor{pipe}}), 1, 0, 1},
		{"files", process(host.Process{Args: []string{"a"}, Descriptors: many(host.Descriptor{Kind: host.File, Object: "file:[1:2]", Path: long}, 10)}), 2, 0, 1},
		{"channels", process(host.Process{Descriptors: many(host.Descriptor{Kind: host.FIFO, Object: "fifo:[1:2]", Path: long}, 10)}), 3, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bounded(&tt.r)
			if len(b) > maxReport {
				t.Fatalf("the report has %d octets", len(b))
			}
			got, err := report.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			p := got.Processes[0]
			if len(got.Gaps) != tt.gaps || len(p.Args) != tt.args || len(p.Descriptors) != tt.others {
				t.Errorf("%d gaps, %d arguments, %d descriptors; want %d, %d, %d", len(got.Gaps), len(p.Args), len(p.Descriptors), tt.gaps, tt.args, tt.others)
			}
		})
	}
}
