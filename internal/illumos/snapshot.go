package illumos

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
	ps, more := t.processes()
	return &snapshot{h: h, table: host.NewTable(ps), more: map[int]processRead{}, found: append(gaps, more...)}, nil
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

// read reads what /proc has in files of its own, and the names of the users.
func (s *snapshot) read(ctx context.Context, p *host.Process) {
	p.RUser, p.EUser = s.h.UserName(ctx, *p.RUID), s.h.UserName(ctx, *p.EUID)
	note := func(what string, err error) bool {
		if err != nil {
			s.own = append(s.own, host.Gap{PID: p.PID, What: what, Why: err.Error()})
		}
		return err == nil
	}
	b, err := s.h.read(procPath(p.PID, "cred"))
	if note("saved ids", err) {
		if suid, sgid, err := parseCred(b); note("saved ids", err) {
			p.SUID, p.SGID = &suid, &sgid
		}
	}
	if p.PID == 0 {
		return // the kernel itself
	}
	if b, err = s.h.read(procPath(p.PID, "argv")); note("arguments", err) {
		p.Args = posix.ParseStrings(b)
	}
	if b, err = s.h.read(procPath(p.PID, "environ")); note("environment", err) {
		login, job := posix.ParseEnviron(posix.ParseStrings(b))
		p.Login, p.Job = login, posix.JobOf("", job)
	}
	p.CWD, err = s.h.link(procPath(p.PID, "path/cwd"))
	note("working directory", err)
	p.Exe, err = s.h.link(procPath(p.PID, "path/a.out"))
	note("program", err)
	if now, err := s.h.psinfo(p.PID); err != nil || !now.start.Equal(p.Start) || now.name != p.Name {
		p.Args, p.Login, p.Job, p.CWD, p.Exe, p.SUID, p.SGID = nil, nil, nil, "", "", nil, nil
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

// Logins returns nobody: utmpx is not read.
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
		if _, asked := s.more[g.PID]; asked || g.PID == 0 {
			gaps = append(gaps, g)
		} else if g.What == "descriptors" {
			others = append(others, g) // the connection may be theirs
		}
	}
	return append(gaps, posix.SumGaps(others)...)
}

// Close ends the look.
func (*snapshot) Close() error { return nil }
