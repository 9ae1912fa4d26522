package freebsd

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// tables reads all processes with their descriptors. What it could not read is a gap, and so is who ended meanwhile, who is left out. Who
// began is in it, and of whose pid was used again nothing is taken.
func (h *Host) tables(ctx context.Context) (*tables, []host.Gap, error) {
	t := &tables{}
	var gaps []host.Gap
	var listed []proc
	began, files, missed := map[int]proc{}, map[int][]file{}, map[int]bool{}
	for range 2 { // who began meanwhile in the second
		ps, err := h.procs(mibProcs)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range ps {
			if _, known := began[p.pid]; known || p.ended {
				continue
			}
			began[p.pid], listed = p, append(listed, p)
			if ctx.Err() != nil {
				gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapDescriptors, Why: "bound: deadline"})
				continue
			}
			b, err := h.sysctl(mibFiles(p.pid))
			if err == nil {
				files[p.pid], err = parseFiles(b)
			}
			switch {
			case errors.Is(err, host.ErrNotFound):
				missed[p.pid] = true // it ended, or may not be seen
			case err != nil && !errors.Is(err, os.ErrNotExist): // the kernel's own processes have none
				gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapDescriptors, Why: err.Error()})
			}
		}
	}
	after, err := h.procs(mibProcs)
	if err != nil {
		return nil, nil, err
	}
	there := map[int]bool{}
	for _, p := range after {
		was, known := began[p.pid]
		there[p.pid] = true
		switch {
		case known && was.start != p.start:
			gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapProcess, Why: "its pid was used again while the host was looked at"})
			continue
		case known && p.ended:
			gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapProcess, Why: posix.WhyEnded})
		case missed[p.pid]:
			gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapDescriptors, Why: "the kernel does not tell them"})
		case !known && !p.ended:
			gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapDescriptors, Why: posix.WhyBegan})
		}
		t.procs = append(t.procs, look{p, files[p.pid]})
	}
	for _, p := range listed {
		if !there[p.pid] {
			gaps = append(gaps, host.Gap{PID: p.pid, What: posix.GapProcess, Why: posix.WhyEnded})
		}
	}
	return t, gaps, nil
}

// Find looks for the socket of a flow among all descriptors, and where nobody has it but the kernel may know of it once more, since it may
// have been handed on meanwhile. One that nobody holds the kernel does not list with them.
func (h *Host) Find(ctx context.Context, f host.Flow) (host.Socket, error) {
	if !f.Remote.IsValid() {
		return host.Socket{}, host.ErrNotFound
	}
	for again := false; ; again = true {
		t, gaps, err := h.tables(ctx)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return host.Socket{}, err
		}
		s, err := t.held(f)
		if err == nil {
			if uid, err := h.creator(s.Protocol, s.Local, s.Remote); err == nil {
				s.UID = uid
			}
			return s, nil
		}
		if !errors.Is(err, host.ErrNotFound) {
			return host.Socket{}, err
		}
		if _, none := h.creator(f.Protocol, f.Local, f.Remote); !again && !errors.Is(none, host.ErrNotFound) {
			continue
		}
		if slices.ContainsFunc(gaps, posix.HidesHolder) {
			return host.Socket{}, errors.New("not among the descriptors that could be read")
		}
		return host.Socket{}, err
	}
}

// creator is the user who made the socket of a connection, whoever holds it. The error is ErrNotFound where the daemon's own network stack
// has no such connection.
func (h *Host) creator(k host.Kind, local, remote netip.AddrPort) (uid uint32, err error) {
	if k != host.TCP || local.Addr().IsUnspecified() || local.Addr().IsLinkLocalUnicast() { // those have no zone here
		return 0, errors.ErrUnsupported
	}
	name, question := formatEnds(local, remote)
	b, err := h.sysctlOf(name, question, credRoom)
	if err != nil {
		return 0, err
	}
	return parseCred(b)
}

// held finds the socket of a flow that processes have.
func (t *tables) held(f host.Flow) (host.Socket, error) {
	ps, _ := t.processes()
	s, _, err := posix.Held(ps, f)
	return s, err
}
