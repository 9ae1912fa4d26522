package openbsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// A snapshot is one look at the machine: all processes and descriptors, read as it begins.
type snapshot struct {
	h     *Host
	table *host.Table
	// more is what of each process is read when it is asked for, and untold what the kernel does not tell of it.
	more   map[int]processRead
	untold map[int][]host.Gap
	gaps   []host.Gap
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
	t, err := h.tables(mibFiles)
	if err != nil {
		return nil, err
	}
	after, err := h.procs(mibProcs)
	if err != nil {
		return nil, err
	}
	s := &snapshot{h: h, more: map[int]processRead{}, untold: map[int][]host.Gap{}}
	t.procs = s.steady(t.procs, after, t.files)
	if t.own, err = h.addresses(); err != nil {
		s.gap(0, "addresses", err)
	}
	t.devices = h.devices()
	ps, gaps := t.processes()
	paths(ps)
	for _, g := range gaps {
		s.untold[g.PID] = append(s.untold[g.PID], g)
	}
	s.table = host.NewTable(ps)
	return s, nil
}

// steady returns the processes that were there when the descriptors had been read. Whose pid was another's before is left
// out, since whose descriptors they are is not told; who has ended since is a gap.
func (s *snapshot) steady(before, after []proc, files []file) []proc {
	was, is := map[int]proc{}, map[int]bool{}
	for _, p := range before {
		was[p.pid] = p
	}
	steady := slices.DeleteFunc(slices.Clone(after), func(p proc) bool {
		old, known := was[p.pid]
		return known && old.start != p.start && p.start != 0 && old.start != 0
	})
	for _, p := range steady {
		is[p.pid] = true
	}
	gone := map[int]bool{}
	for _, f := range files {
		if !is[f.pid] && !gone[f.pid] {
			gone[f.pid] = true
			s.gap(f.pid, "process", errors.New("it ended while the host was looked at"))
		}
	}
	return steady
}

func (s *snapshot) gap(pid int, what string, err error) {
	s.gaps = append(s.gaps, host.Gap{PID: pid, What: what, Why: err.Error()})
}

// Process returns a process, with what is read of it alone.
func (s *snapshot) Process(ctx context.Context, pid int) (host.Process, error) {
	if r, ok := s.more[pid]; ok {
		return r.p, r.err
	}
	p, err := s.table.Process(pid)
	if err == nil {
		s.gaps = append(s.gaps, s.untold[pid]...)
		s.read(ctx, &p)
	}
	s.more[pid] = processRead{p, err}
	return p, err
}

// read reads what the kernel tells of one process at a time, and the names of its users.
func (s *snapshot) read(ctx context.Context, p *host.Process) {
	p.RUser, p.EUser = s.h.UserName(ctx, *p.RUID), s.h.UserName(ctx, *p.EUID)
	switch {
	case p.PID == 0:
		return // the kernel itself
	case p.StartTicks == 0:
		s.gap(p.PID, "process", errors.New("it has ended and waits for its parent"))
		return
	}
	var err error
	if p.Args, err = s.strings(mibArguments(p.PID)); err != nil {
		s.gap(p.PID, "arguments", err)
	}
	environ, err := s.strings(mibEnvironment(p.PID))
	if err != nil {
		s.gap(p.PID, "environment", err)
	}
	login, job := posix.ParseEnviron(environ)
	p.Login, p.Job = login, posix.JobOf("", job)
	b, err := s.h.sysctl(mibDirectory(p.PID))
	if err != nil {
		s.gap(p.PID, "working directory", err)
	}
	p.CWD = str(b)
	if now, err := s.h.procs(mibProcess(p.PID)); err != nil || len(now) != 1 || now[0].start != p.StartTicks || now[0].comm != p.Name {
		p.Args, p.Login, p.Job, p.CWD = nil, nil, nil, ""
		s.gap(p.PID, "process", errors.New("it ended, or became another program, while it was looked at"))
	}
}

func (s *snapshot) strings(mib []int32) ([]string, error) {
	b, err := s.h.sysctl(mib)
	if err != nil {
		return nil, err
	}
	return parseStrings(b)
}

// Holders returns who holds an object.
func (s *snapshot) Holders(_ context.Context, o host.Object) ([]host.Holder, error) {
	return s.table.Holders(o)
}

// Peers returns the objects at the other end of one.
func (s *snapshot) Peers(_ context.Context, o host.Object) ([]host.Object, error) {
	return s.table.Peers(o)
}

// Where the system keeps who is logged in, and how many records are read of each.
const (
	utmpFile        = "/var/run/utmp"
	wtmpFile        = "/var/log/wtmp"
	maxLoginRecords = 4096
)

// Logins reads utmp and wtmp.
func (s *snapshot) Logins(context.Context) ([]host.Login, error) {
	read := func(path string) ([]byte, bool) {
		b, cut, err := s.h.tail(path, maxLoginRecords*utmpSize, utmpSize)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.gap(0, path, err)
		}
		return b, cut
	}
	bound := func(path string) { s.gap(0, path, fmt.Errorf("bound: the last %d records", maxLoginRecords)) }
	utmp, cut := read(utmpFile)
	if cut {
		bound(utmpFile)
	}
	wtmp, cut := read(wtmpFile)
	boot, err := s.h.bootTime()
	if err != nil {
		s.gap(0, wtmpFile, fmt.Errorf("find the records since the start: %w", err))
		return parseUtmp(utmp), nil
	}
	ended, reaches := parseWtmp(wtmp, boot)
	if cut && !reaches {
		bound(wtmpFile)
	}
	return append(parseUtmp(utmp), ended...), nil
}

// Audited returns nobody: the system has no audit sessions.
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

// Gaps returns what could not be read so far.
func (s *snapshot) Gaps() []host.Gap { return slices.Clone(s.gaps) }

// Close ends the look.
func (*snapshot) Close() error { return nil }
