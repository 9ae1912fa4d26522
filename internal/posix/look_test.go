package posix

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// A look reads what is asked for, once. Of processes that nobody asked for only gaps that hide a holder are told, together where they are many.
func TestLook(t *testing.T) {
	found := []host.Gap{{What: "addresses", Why: "x"}, {PID: 7, What: "other end", Why: "asked"}, {PID: 8, What: "other end", Why: "not asked"}}
	for pid := range FewGaps + 1 {
		found = append(found, host.Gap{PID: 100 + pid, What: GapDescriptors, Why: "refused"})
	}
	reads := 0
	l := NewLook([]host.Process{{PID: 7}, {PID: 8}}, found, func(_ context.Context, p *host.Process) []host.Gap {
		reads++
		p.CWD = "/"
		return []host.Gap{{PID: p.PID, What: "arguments", Why: "refused"}}
	})
	for range 2 {
		if p, err := l.Process(t.Context(), 7); err != nil || p.CWD != "/" || reads != 1 {
			t.Errorf("%+v, %v, read %d times", p, err, reads)
		}
	}
	if p, err := l.Process(t.Context(), 9); err != host.ErrNotFound {
		t.Errorf("%+v, %v", p, err)
	}
	want := []host.Gap{{PID: 7, What: "arguments", Why: "refused"}, found[0], found[1], {What: "descriptors of 9 processes", Why: "refused"}}
	if d := cmp.Diff(want, l.Gaps()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestList(t *testing.T) {
	var l List
	for i, d := range []host.Descriptor{{Kind: host.Pipe, Object: "a"}, {Kind: host.Pipe, Object: "a"}, {Kind: host.Pipe, Object: "a", Mode: host.Read},
		{Kind: host.Pipe}, {Kind: host.Pipe}, {Kind: host.File, Path: "/dev/null"}, {Kind: host.File, Path: "/dev/null"}, {Kind: host.File, Path: "/dev/zero"}} {
		d.FDs = []int{i}
		l.Add(d)
	}
	var got [][]int
	for _, d := range l.All {
		got = append(got, d.FDs)
	}
	if d := cmp.Diff([][]int{{0, 1}, {2}, {3}, {4}, {5, 6}, {7}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
