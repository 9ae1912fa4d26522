package openbsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

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
	var gaps []host.Gap
	t.procs, gaps = steady(t.procs, after, t.files)
	if t.own, err = h.addresses(); err != nil {
		gaps = append(gaps, host.Gap{What: "addresses", Why: err.Error()})
	}
	t.devices = h.devices()
	ps, more := t.processes()
	paths(ps)
	l := posix.NewLook(ps, append(gaps, more...), h.read)
	l.LoginsOf = h.logins
	return l, nil
}

// steady returns the processes that were there when the descriptors had been read. Whose pid was another's before is left
// out, since whose descriptors they are is not told; who has ended since is a gap.
func steady(before, after []proc, files []file) (now []proc, gaps []host.Gap) {
	was, is := map[int]proc{}, map[int]bool{}
	for _, p := range before {
		was[p.pid] = p
	}
	now = slices.DeleteFunc(slices.Clone(after), func(p proc) bool {
		old, known := was[p.pid]
		return known && old.start != p.start && p.start != 0 && old.start != 0
	})
	for _, p := range now {
		is[p.pid] = true
	}
	gone := map[int]bool{}
	for _, f := range files {
		if !is[f.pid] && !gone[f.pid] {
			gone[f.pid] = true
			gaps = append(gaps, host.Gap{PID: f.pid, What: posix.GapProcess, Why: posix.WhyEnded})
		}
	}
	return now, gaps
}

// read reads what the kernel tells of one process at a time, and the names of its users.
func (h *Host) read(ctx context.Context, p *host.Process) (gaps []host.Gap) {
	p.RUser, p.EUser = h.UserName(ctx, *p.RUID), h.UserName(ctx, *p.EUID)
	note := func(what string, err error) bool {
		if err != nil {
			gaps = append(gaps, host.Gap{PID: p.PID, What: what, Why: err.Error()})
		}
		return err == nil
	}
	switch {
	case p.PID == 0:
		return nil // the kernel itself
	case p.StartTicks == 0:
		note(posix.GapProcess, errors.New("it has ended and waits for its parent"))
		return gaps
	}
	var err error
	p.Args, err = h.strings(mibArguments(p.PID))
	note("arguments", err)
	environ, err := h.strings(mibEnvironment(p.PID))
	note("environment", err)
	login, job := posix.ParseEnviron(environ)
	p.Login, p.Job = login, posix.JobOf("", job)
	b, err := h.sysctl(mibDirectory(p.PID))
	note("working directory", err)
	p.CWD = str(b)
	if now, err := h.procs(mibProcess(p.PID)); err != nil || len(now) != 1 || now[0].start != p.StartTicks || now[0].comm != p.Name {
		p.Args, p.Login, p.Job, p.CWD = nil, nil, nil, ""
		note(posix.GapProcess, posix.ErrChanged)
	}
	return gaps
}

func (h *Host) strings(mib []int32) ([]string, error) {
	b, err := h.sysctl(mib)
	if err != nil {
		return nil, err
	}
	return parseStrings(b)
}

// Where the system keeps who is logged in, and how many records are read of each.
const (
	utmpFile        = "/var/run/utmp"
	wtmpFile        = "/var/log/wtmp"
	maxLoginRecords = 4096
)

// logins reads utmp and wtmp.
func (h *Host) logins() (ls []host.Login, gaps []host.Gap) {
	gap := func(path, why string) { gaps = append(gaps, host.Gap{What: path, Why: why}) }
	read := func(path string) ([]byte, bool) {
		b, cut, err := h.tail(path, maxLoginRecords*utmpSize, utmpSize)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			gap(path, err.Error())
		}
		return b, cut
	}
	bound := fmt.Sprintf("bound: the last %d records", maxLoginRecords)
	utmp, cut := read(utmpFile)
	if cut {
		gap(utmpFile, bound)
	}
	ls = parseUtmp(utmp)
	boot, err := h.bootTime()
	if err != nil {
		gap(wtmpFile, "find the records since the start: "+err.Error())
		return ls, gaps
	}
	wtmp, cut := read(wtmpFile)
	ended, reaches := parseWtmp(wtmp, boot)
	if cut && !reaches {
		gap(wtmpFile, bound)
	}
	return append(ls, ended...), gaps
}
