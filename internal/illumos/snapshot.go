package illumos

import (
	"context"
	"errors"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

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
	return posix.NewLook(ps, append(gaps, more...), h.more), nil
}

// more reads what /proc has in files of its own, and the names of the users.
func (h *Host) more(ctx context.Context, p *host.Process) (gaps []host.Gap) {
	p.RUser, p.EUser = h.UserName(ctx, *p.RUID), h.UserName(ctx, *p.EUID)
	note := func(what string, err error) bool {
		if err != nil {
			gaps = append(gaps, host.Gap{PID: p.PID, What: what, Why: err.Error()})
		}
		return err == nil
	}
	b, err := h.read(procPath(p.PID, "cred"))
	if note("saved ids", err) {
		if suid, sgid, err := parseCred(b); note("saved ids", err) {
			p.SUID, p.SGID = &suid, &sgid
		}
	}
	if p.PID == 0 {
		return gaps // the kernel itself
	}
	if b, err = h.read(procPath(p.PID, "argv")); note("arguments", err) || errors.Is(err, errCut) {
		p.Args = posix.ParseStrings(b)
	}
	if b, err = h.read(procPath(p.PID, "environ")); note("environment", err) || errors.Is(err, errCut) {
		login, job := posix.ParseEnviron(posix.ParseStrings(b))
		p.Login, p.Job = login, posix.JobOf("", job)
	}
	p.CWD, err = h.link(procPath(p.PID, "path/cwd"))
	note("working directory", err)
	p.Exe, err = h.link(procPath(p.PID, "path/a.out"))
	note("program", err)
	if now, err := h.psinfo(p.PID); err != nil || !now.start.Equal(p.Start) || now.name != p.Name {
		p.Args, p.Login, p.Job, p.CWD, p.Exe, p.SUID, p.SGID = nil, nil, nil, "", "", nil, nil
		note(posix.GapProcess, posix.ErrChanged)
	}
	return gaps
}
