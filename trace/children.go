package trace

import (
	"slices"

	"github.com/stopd/stopd/host"
)

// children is the service of a process for those that it made: the pipes and socket pairs that nobody has but the maker and whoever descends from
// it. A supervisor, or a server with workers, has such with each; what the one child says is no more meant for the other than what a service's clients
// say. See docs/decisions/0011-hubs.md.
const children = "children"

// makerOf returns whose service for its children a channel is; nil where it is none.
func (t *tracer) makerOf(c *Channel) *node {
	if c.Kind != host.Pipe && c.Kind != host.Unix {
		return nil
	}
	var holders []*node
	for _, e := range c.Ends {
		n := t.at(e)
		switch {
		case n == nil || n.isInit() || slices.Contains(holders, n):
			continue
		case serviceOf(n.end(e.object)) != "":
			return nil // one has a name
		}
		holders = append(holders, n)
	}
	for _, m := range holders {
		if !slices.ContainsFunc(holders, func(n *node) bool { return n != m && (!t.made(m, n) || t.made(n, m)) }) {
			return m
		}
	}
	return nil
}

// made reports whether a process descends from another, by the parents that they have or by those who are remembered to have made them.
func (t *tracer) made(m, n *node) bool { return n.descends(m) || t.descends(n.ID(), m.ID()) }

// astray reports whether a process that the maker of a channel made is not taken to speak to another by it: what all have inherited is for the maker. It
// is where who tells was left the writing end of a pipe alone, and who hears the reading end; where one made the other; and in weak ways where all are one user's.
func (t *tracer) astray(maker *node, w, r End, a, b *node, weak bool) bool {
	siblings := a.parent == maker && b.parent == maker // most are
	if maker == nil || a == maker || b == maker || w.object == r.object && w.Mode == host.Write && r.Mode == host.Read ||
		!siblings && (t.made(a, b) || t.made(b, a)) {
		return false
	}
	return !weak || !t.ofOne(a, maker) || !t.ofOne(b, maker)
}
