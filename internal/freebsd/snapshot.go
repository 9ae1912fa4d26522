package freebsd

import (
	"context"

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
	return posix.NewLook(ps, append(gaps, more...), h.read), nil
}

// read reads what the kernel tells of one process at a time, and the names of its users.
func (h *Host) read(ctx context.Context, p *host.Process) (gaps []host.Gap) {
	p.RUser, p.EUser = h.UserName(ctx, *p.RUID), h.UserName(ctx, *p.EUID)
	if p.PID == 0 {
		return nil // the kernel itself
	}
	note := func(what string, err error) bool {
		if err != nil {
			gaps = append(gaps, host.Gap{PID: p.PID, What: what, Why: err.Error()})
		}
		return err == nil
	}
	if b, err := h.sysctl(mibArguments(p.PID)); note("arguments", err) {
		p.Args = posix.ParseStrings(b)
	}
	if b, err := h.sysctl(mibEnvironment(p.PID)); note("environment", err) {
		login, job := posix.ParseEnviron(posix.ParseStrings(b))
		p.Login, p.Job = login, posix.JobOf("", job)
	}
	if now, err := h.procs(mibProcess(p.PID)); err != nil || len(now) != 1 || now[0].start != p.StartTicks || now[0].name != p.Name {
		p.Args, p.Login, p.Job = nil, nil, nil
		note(posix.GapProcess, posix.ErrChanged)
	}
	return gaps
}
