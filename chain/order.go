package chain

import (
	"cmp"
	"slices"
)

// A graph is what is drawn: hosts by number, and whom each leads to.
type graph struct {
	next, before [][]int
}

func newGraph(n int) *graph { return &graph{make([][]int, n), make([][]int, n)} }

// edge adds a connection once. One of a host with itself has no place in an order.
func (g *graph) edge(from, to int) {
	if from != to && !slices.Contains(g.next[from], to) {
		g.next[from] = append(g.next[from], to)
		g.before[to] = append(g.before[to], from)
	}
}

// parts puts hosts in columns, from where paths begin to where they end, each part that nothing joins to the
// others for itself, the largest first.
func (g *graph) parts(shown []int) [][][]int {
	var parts [][][]int
	seen := map[int]bool{}
	for _, n := range shown {
		if !seen[n] {
			parts = append(parts, g.columns(g.reach(n, seen)))
		}
	}
	size := func(p [][]int) (n int) {
		for _, c := range p {
			n += len(c)
		}
		return n
	}
	slices.SortStableFunc(parts, func(x, y [][]int) int { return cmp.Compare(size(y), size(x)) })
	return parts
}

// reach lists what is joined to a host, in whichever direction, in order.
func (g *graph) reach(n int, seen map[int]bool) []int {
	seen[n] = true
	part := []int{n}
	for i := 0; i < len(part); i++ {
		for _, m := range slices.Concat(g.next[part[i]], g.before[part[i]]) {
			if !seen[m] {
				seen[m] = true
				part = append(part, m)
			}
		}
	}
	slices.Sort(part)
	return part
}

// columns puts each host as many columns before the end as the longest way there has connections. Connections that
// close a loop do not count.
func (g *graph) columns(part []int) [][]int {
	const under = -1
	left := map[int]int{} // how many connections to the end, plus one; under while it is looked at
	var visit func(n int) int
	visit = func(n int) int {
		if left[n] != 0 {
			return left[n]
		}
		left[n] = under
		longest := 0
		for _, m := range g.next[n] {
			if d := visit(m); d != under {
				longest = max(longest, d)
			}
		}
		left[n] = longest + 1
		return left[n]
	}
	// From where paths begin: so that a loop is cut where it comes back and not where it is entered.
	roots := slices.Clone(part)
	slices.SortStableFunc(roots, func(x, y int) int {
		return cmp.Compare(min(len(g.before[x]), 1), min(len(g.before[y]), 1))
	})
	longest := 0
	for _, n := range roots {
		longest = max(longest, visit(n))
	}
	columns := make([][]int, longest)
	for _, n := range part {
		c := longest - left[n]
		columns[c] = append(columns[c], n)
	}
	g.untangle(columns)
	return columns
}

// sweeps is how often columns are put in the order of their neighbours: more changes little.
const sweeps = 8

// untangle orders each column by where the neighbours of its hosts are.
func (g *graph) untangle(columns [][]int) {
	at := map[int]float64{}
	place := func(column []int) {
		for i, n := range column {
			at[n] = (float64(i) + 0.5) / float64(len(column))
		}
	}
	for _, c := range columns {
		place(c)
	}
	for s := range sweeps {
		for i := range columns {
			c, by := columns[i], g.before
			if s%2 == 0 {
				c, by = columns[len(columns)-1-i], g.next
			}
			middle := map[int]float64{}
			for _, n := range c {
				middle[n] = at[n]
				if len(by[n]) > 0 {
					sum := 0.0
					for _, m := range by[n] {
						sum += at[m]
					}
					middle[n] = sum / float64(len(by[n]))
				}
			}
			slices.SortStableFunc(c, func(x, y int) int { return cmp.Compare(middle[x], middle[y]) })
			place(c)
		}
	}
}
