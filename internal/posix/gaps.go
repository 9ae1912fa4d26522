package posix

import (
	"fmt"

	"github.com/stopd/stopd/host"
)

// FewGaps is how many processes with the same gap are still listed one by one.
const FewGaps = 8

// SumGaps makes one gap, with a count, of those that many processes have alike: without privileges a daemon
// cannot read most of them. Gaps keep the order of the
// first of their kind.
func SumGaps(gaps []host.Gap) []host.Gap {
	type kind struct{ what, why string }
	pids := map[kind]map[int]bool{}
	for _, g := range gaps {
		k := kind{g.What, g.Why}
		if pids[k] == nil {
			pids[k] = map[int]bool{}
		}
		pids[k][g.PID] = true
	}
	var out []host.Gap
	said := map[kind]bool{}
	for _, g := range gaps {
		k := kind{g.What, g.Why}
		n := len(pids[k])
		switch {
		case n <= FewGaps:
			out = append(out, g)
		case !said[k]:
			said[k] = true
			out = append(out, host.Gap{What: fmt.Sprintf("%s of %d processes", g.What, n), Why: g.Why})
		}
	}
	return out
}
