package posix

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// A Look is a look at a host whose system tells of all processes at once: a table, and of each process what is read of it alone when it
// is asked for. It is a [host.Snapshot] of a system that has no audit sessions, whose logs are not read, and whose past is not recorded.
type Look struct {
	table *host.Table
	read  func(context.Context, *host.Process) []host.Gap
	// LoginsOf reads who is logged in; nil where that is not read.
	LoginsOf func() ([]host.Login, []host.Gap)

	processes  map[int]processRead
	found, own []host.Gap
}

type processRead struct {
	p   host.Process
	err error
}

// What a gap is about that hides who holds a connection, whoever has it.
const (
	GapDescriptors = "descriptors"
	GapProcess     = "process"
)

// HidesHolder reports whether somebody may hold a connection whom a look has not seen.
func HidesHolder(g host.Gap) bool { return g.What == GapDescriptors || g.What == GapProcess }

// Why of processes that came or went there is not all, or nothing.
const (
	WhyBegan = "it began while the host was looked at"
	WhyEnded = "it ended while the host was looked at"
)

// ErrChanged says that what was read of a process may be another's, and was thrown away.
var ErrChanged = errors.New("it ended, or became another program, while it was looked at")

// NewLook makes a look of the processes and the gaps that were found. Read adds what is read of one process alone, and returns what
// could not be.
func NewLook(ps []host.Process, found []host.Gap, read func(context.Context, *host.Process) []host.Gap) *Look {
	return &Look{table: host.NewTable(ps), read: read, processes: map[int]processRead{}, found: found}
}

// Process returns a process, with what is read of it alone.
func (l *Look) Process(ctx context.Context, pid int) (host.Process, error) {
	if r, ok := l.processes[pid]; ok {
		return r.p, r.err
	}
	p, err := l.table.Process(pid)
	if err == nil {
		l.own = append(l.own, l.read(ctx, &p)...)
	}
	l.processes[pid] = processRead{p, err}
	return p, err
}

// Holders returns who holds an object.
func (l *Look) Holders(_ context.Context, o host.Object) ([]host.Holder, error) {
	return l.table.Holders(o)
}

// Peers returns the objects at the other end of one.
func (l *Look) Peers(_ context.Context, o host.Object) ([]host.Object, error) {
	return l.table.Peers(o)
}

// Logins returns who is logged in.
func (l *Look) Logins(context.Context) ([]host.Login, error) {
	if l.LoginsOf == nil {
		return nil, nil
	}
	ls, gaps := l.LoginsOf()
	l.own = append(l.own, gaps...)
	return ls, nil
}

// Audited returns nobody.
func (*Look) Audited(context.Context, uint32) ([]int, error) { return nil, nil }

// Accepted returns nothing.
func (*Look) Accepted(context.Context, []host.ID) ([]host.Login, error) { return nil, nil }

// Remembered returns nothing: the past is not recorded.
func (*Look) Remembered(context.Context, host.ID) (host.Remembered, error) {
	return host.Remembered{}, host.ErrNotFound
}

// Held returns nothing, as Remembered does.
func (*Look) Held(context.Context, host.ID, time.Time, time.Time, bool) ([]host.Socket, bool, error) {
	return nil, false, host.ErrNotFound
}

// Gaps returns what could not be read so far. Of processes that nobody asked for only what hides a holder counts, together where many have
// the same.
func (l *Look) Gaps() []host.Gap {
	gaps := slices.Clone(l.own)
	var others []host.Gap
	for _, g := range l.found {
		if _, asked := l.processes[g.PID]; asked || g.PID == 0 {
			gaps = append(gaps, g)
		} else if HidesHolder(g) {
			others = append(others, g)
		}
	}
	return append(gaps, SumGaps(others)...)
}

// Close ends the look.
func (*Look) Close() error { return nil }
