package recorder

import "slices"

// A LossKind says why something is not remembered.
type LossKind uint8

// Kinds of losses.
const (
	// Start: it was before the history began.
	Start LossKind = iota + 1
	// Ring: events were lost.
	Ring
	// Full: all places were taken by what is open or alive.
	Full
	// Forgotten: it ended so long ago that it gave way, or might have.
	Forgotten
	// Off: nobody looked.
	Off
	// Unjoined: what the processes had, by which they can be joined, that ended so long ago gave way.
	Unjoined

	lossKinds
)

// A Loss is between when something may be missing.
type Loss struct {
	Kind     LossKind
	From, To uint64
}

// maxLosses is how many are kept of each kind. Beyond, the two oldest are taken together.
const maxLosses = 64

// near is how far apart losses of one kind are one.
const near = 1e9

type losses struct {
	begun uint64
	reach uint64 // everything that ended later is remembered, but for the lists
	// unjoined is reach for what processes had.
	unjoined uint64
	lists    [lossKinds][]Loss
}

func (l *losses) clone() losses {
	c := *l
	for k := range c.lists {
		c.lists[k] = slices.Clone(c.lists[k])
	}
	return c
}

// forgot notes that something is forgotten that ended at a time.
func (l *losses) forgot(ended uint64) { l.reach = max(l.reach, ended) }

func (l *losses) add(x Loss) {
	list := &l.lists[x.Kind]
	if n := len(*list); n > 0 && x.From <= (*list)[n-1].To+near {
		last := &(*list)[n-1]
		last.From, last.To = min(last.From, x.From), max(last.To, x.To)
		return
	}
	if len(*list) == maxLosses {
		(*list)[1].From = min((*list)[0].From, (*list)[1].From)
		*list = append((*list)[:0], (*list)[1:]...)
	}
	*list = append(*list, x)
}

// touching returns the losses between two times.
func (l *losses) touching(from, to uint64) []Loss {
	var found []Loss
	if from < l.begun {
		found = append(found, Loss{Start, 0, l.begun})
	}
	if l.reach > 0 && from <= l.reach {
		found = append(found, Loss{Forgotten, 0, l.reach})
	}
	if l.unjoined > 0 && from <= l.unjoined {
		found = append(found, Loss{Unjoined, 0, l.unjoined})
	}
	for _, list := range l.lists {
		for _, x := range list {
			if x.From <= to && from <= x.To {
				found = append(found, x)
			}
		}
	}
	return found
}
