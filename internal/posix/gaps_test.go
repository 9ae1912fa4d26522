package posix

import (
	"fmt"
	"testing"

	"github.com/stopd/stopd/host"
)

func TestSumGaps(t *testing.T) {
	var gaps, want []host.Gap
	add := func(pid int, why string) { gaps = append(gaps, host.Gap{PID: pid, What: "descriptors", Why: why}) }
	for pid := range FewGaps {
		add(100+pid, "few")
	}
	want = append(want, gaps...)
	for pid := range FewGaps + 1 {
		add(100+pid, "many")
		add(100+pid, "many") // a thread of the same process
	}
	want = append(want, host.Gap{What: fmt.Sprintf("descriptors of %d processes", FewGaps+1), Why: "many"})
	add(1, "one")
	want = append(want, gaps[len(gaps)-1])
	if got := SumGaps(gaps); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("summed:\n%v\nwant\n%v", got, want)
	}
}
