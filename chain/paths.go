package chain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/stopd/stopd/report"
)

// paths finds the ways through the hosts: backwards from each connection that none leads out of, over what the
// hosts say belongs together. Candidates that were not asked are on no path.
func (c *Chain) paths() {
	w := &walk{Chain: c, before: map[int][]int{}, on: map[int]bool{}, drawn: map[int]bool{}}
	inner := map[int]bool{}
	for _, j := range c.Joins {
		if c.connection(j.In).asked() && !slices.Contains(w.before[j.Out], j.In) {
			w.before[j.Out] = append(w.before[j.Out], j.In)
			inner[j.In] = true
		}
	}
	for i := range c.Connections {
		if k := &c.Connections[i]; !inner[k.ID] && k.asked() {
			w.back(k.ID)
		}
	}
	// What is left goes round in circles.
	for i := range c.Connections {
		if k := &c.Connections[i]; !w.drawn[k.ID] && k.asked() {
			w.back(k.ID)
		}
	}
	// Those that lead furthest come first.
	slices.SortStableFunc(c.Paths, func(x, y Path) int {
		switch {
		case x.Loop && !y.Loop:
			return 1
		case y.Loop && !x.Loop:
			return -1
		}
		return cmp.Compare(len(y.Hosts), len(x.Hosts))
	})
	if w.left > 0 {
		c.Omitted = append(c.Omitted, Omission{"paths", w.left})
	}
	for _, p := range c.Paths {
		c.host(p.Hosts[len(p.Hosts)-1]).Ends = true
	}
}

// A walk goes back from where a path ends.
type walk struct {
	*Chain
	before map[int][]int
	on     map[int]bool // connections of the path so far
	drawn  map[int]bool // connections of any path
	way    []int        // from the last
	steps  int
	left   int // paths over the bound
}

func (w *walk) back(id int) {
	if w.steps++; w.steps > maxSteps {
		w.left++
		w.drawn[id] = true
		return
	}
	w.on[id], w.drawn[id] = true, true
	w.way = append(w.way, id)
	begins := true
	for _, in := range w.before[id] {
		begins = false
		if w.on[in] {
			w.add(append(slices.Clone(w.way), in), true)
		} else {
			w.back(in)
		}
	}
	if begins {
		w.add(w.way, false)
	}
	w.way = w.way[:len(w.way)-1]
	delete(w.on, id)
}

// add adds a path, given from its end.
func (w *walk) add(way []int, loop bool) {
	if len(w.Paths) == maxPaths {
		w.left++
		return
	}
	p := Path{Connections: slices.Clone(way), Loop: loop}
	slices.Reverse(p.Connections)
	for _, id := range p.Connections {
		p.Hosts = append(p.Hosts, w.connection(id).From)
	}
	p.Hosts = append(p.Hosts, w.connection(way[0]).To)
	w.Paths = append(w.Paths, p)
}

// begin says why paths begin where they do.
func (c *Chain) begin() {
	for _, p := range c.Paths {
		h := c.host(p.Hosts[0])
		if p.Loop || h.Begins != "" {
			continue
		}
		for i := range h.Reports {
			if a := &h.Reports[i]; a.out == p.Connections[0] && a.Kind != report.KindNone && a.Kind != report.KindDuplicate {
				h.Begins, h.Breaks = a.begins()
				break
			}
		}
	}
}

// begins says why nothing leads further back from a host, and whether it breaks off there.
func (a *Account) begins() (why string, breaks bool) {
	r := &a.redeemed.Report
	switch {
	case a.redeemed.Report.Request.SID == "":
		return fmt.Sprintf("here, as nobody asked the host to follow the connection back (%s)", a.Type), true
	case a.disputed:
		return "off here: the copies of its record of whom it asked differ", true
	case len(r.Previous) > 0 && len(a.redeemed.Traceback) == 0:
		return "here, as the host has no record of whom it asked", true
	case len(r.Previous) > 0:
		return "here, as the host asked nobody", true
	case a.blind():
		return "off here: the host could not see who holds the connection", true
	case a.breaking > 0:
		return "off here: the trace stopped at a bound", true
	}
	return "here, as far as the host could see: no connection leads further back", false
}

// blind reports whether the host does not know who holds the connection.
func (a *Account) blind() bool {
	r := &a.redeemed.Report
	return r.Connection == nil || len(r.Connection.Owners) == 0 ||
		slices.ContainsFunc(a.Breaking, func(g Gap) bool { return g.What == "owners" })
}
