package host

import (
	"errors"
	"slices"
)

// A Table is all processes of a host at one moment, as a recording has them, or a system that tells of all at once.
type Table struct {
	processes []Process
	byPID     map[int]int
	holders   map[Object][]Holder
	peers     map[Object][]Object
}

// errNoObject: what is unknown is not one thing, and nobody holds it.
var errNoObject = errors.New("the object is unknown")

// NewTable makes a table of processes, in the system's own order. Of several with one pid the first counts.
func NewTable(ps []Process) *Table {
	t := &Table{processes: ps, byPID: map[int]int{}, holders: map[Object][]Holder{}, peers: map[Object][]Object{}}
	joined := map[[2]Object]bool{}
	join := func(a, b Object) {
		if a != "" && b != "" && !joined[[2]Object{a, b}] {
			joined[[2]Object{a, b}] = true
			t.peers[a] = append(t.peers[a], b)
		}
	}
	for i, p := range ps {
		if _, twice := t.byPID[p.PID]; twice {
			continue
		}
		t.byPID[p.PID] = i
		for _, d := range p.Descriptors {
			join(d.Object, d.Peer)
			join(d.Peer, d.Object)
			if d.Object != "" {
				t.hold(p.ID(), d)
			}
		}
	}
	for _, hs := range t.holders {
		for _, h := range hs {
			slices.Sort(h.FDs)
		}
	}
	return t
}

// hold adds a descriptor to what the last process holds.
func (t *Table) hold(id ID, d Descriptor) {
	hs := t.holders[d.Object]
	if n := len(hs); n > 0 && hs[n-1].ID == id {
		hs[n-1].FDs = append(hs[n-1].FDs, d.FDs...)
		hs[n-1].Mode = hs[n-1].Mode.With(d.Mode)
		return
	}
	t.holders[d.Object] = append(hs, Holder{ID: id, FDs: slices.Clone(d.FDs), Mode: d.Mode})
}

// Process returns a process; the error is ErrNotFound where it is not in the table.
func (t *Table) Process(pid int) (Process, error) {
	i, ok := t.byPID[pid]
	if !ok {
		return Process{}, ErrNotFound
	}
	return t.processes[i], nil
}

// Holders is that of [Snapshot].
func (t *Table) Holders(o Object) ([]Holder, error) {
	if o == "" {
		return nil, errNoObject
	}
	return t.holders[o], nil
}

// Peers is that of [Snapshot].
func (t *Table) Peers(o Object) ([]Object, error) {
	if o == "" {
		return nil, errNoObject
	}
	return t.peers[o], nil
}
