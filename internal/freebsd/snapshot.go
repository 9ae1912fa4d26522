package freebsd

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// A snapshot is one look at the machine: all processes and descriptors, read as it begins.
type snapshot struct {
	h     *Host
	table *host.Table
	more  map[int]processRead
	// found are the gaps of the look, own what processes that were asked for have beside.
	found, own []host.Gap
}

type processRead struct {
	p   host.Process
	err error
}

// Snapshot reads all processes and descriptors.
func (h *Host) Snapshot(ctx context.Context) (host.Snapshot, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	t, gaps, err := h.tables(ctx)
	if err != nil {
		return nil, err
	}
	return &snapshot{h: h, table: host.NewTable(t.processes()), more: map[int]processRead{}, found: gaps}, nil
}

// Process returns a process, with what is read of it alone.
func (s *snapshot) Process(ctx context.Context, pid int) (host.Process, error) {
	if r, ok := s.more[pid]; ok {
		return r.p, r.err
	}
	p, err := s.table.Process(pid)
	if err == nil {
		s.read(ctx, &p)
	}
	s.more[pid] = processRead{p, err}
	return p, err
}

// read reads what the kernel tells of one process at a time, and the names of its users.
func (s *snapshot) read(ctx context.Context, p *host.Process) {
	p.RUser, p.EUser = s.h.UserName(ctx, *p.RUID), s.h.UserName(ctx, *p.EUID)
	note := func(what string, err error) bool {
		if err != nil {
			s.own = append(s.own, host.Gap{PID: p.PID, What: what, Why: err.Error()})
		}
		return err == nil
	}
	if p.PID == 0 {
		return // the kernel itself
	}
	if b, err := s.h.sysctl(mibArguments(p.PID)); note("arguments", err) {
		p.Args = posix.ParseStrings(b)
	}
	if b, err := s.h.sysctl(mibEnvironment(p.PID)); note("environment", err) {
		login, job := posix.ParseEnviron(posix.ParseStrings(b))
		p.Login, p.Job = login, posix.JobOf("", job)
	}
	if now, err := s.h.procs(mibProcess(p.PID)); err != nil || len(now) != 1 || now[0].start != p.StartTicks || now[0].name != p.Name {
		p.Args, p.Login, p.Job = nil, nil, nil
		note("process", errors.New("it ended, or became another program, while it was looked at"))
	}
}

// Holders returns who holds an object.
func (s *snapshot) Holders(_ context.Context, o host.Object) ([]host.Holder, error) {
	return s.table.Holders(o)
}

// Peers returns the objects at the other end of one.
func (s *snapshot) Peers(_ context.Context, o host.Object) ([]host.Object, error) {
	return s.table.Peers(o)
}

// Logins returns nobody: utx files are not read.
func (*snapshot) Logins(context.Context) ([]host.Login, error) { return nil, nil }

// Audited returns nobody: audit sessions are not read.
func (*snapshot) Audited(context.Context, uint32) ([]int, error) { return nil, nil }

// Accepted returns nothing: logs are not read.
func (*snapshot) Accepted(context.Context, []host.ID) ([]host.Login, error) { return nil, nil }

// Remembered returns nothing: the past is not recorded.
func (*snapshot) Remembered(context.Context, host.ID) (host.Remembered, error) {
	return host.Remembered{}, host.ErrNotFound
}

// Held returns nothing, as Remembered does.
func (*snapshot) Held(context.Context, host.ID, time.Time, time.Time, bool) ([]host.Socket, bool, error) {
	return nil, false, host.ErrNotFound
}

// Gaps returns what could not be read so far. Processes that nobody asked for are counted where many have the same gap.
func (s *snapshot) Gaps() []host.Gap {
	gaps := slices.Clone(s.own)
	var others []host.Gap
	for _, g := range s.found {
		if _, asked := s.more[g.PID]; asked {
			gaps = append(gaps, g)
		} else {
			others = append(others, g)
		}
	}
	return append(gaps, posix.SumGaps(others)...)
}

// Close ends the look.
func (*snapshot) Close() error { return nil }
