package illumos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// maxLists is how often processes are listed at one look, until nobody has begun meanwhile.
const maxLists = 3

// tables reads all processes with their descriptors, and the network stack. What it could not read is a gap, and so is who ended
// meanwhile. Who began is read as well.
func (h *Host) tables(ctx context.Context) (*tables, []host.Gap, error) {
	t := &tables{}
	var gaps []host.Gap
	known := map[int]bool{}
	for lists := 1; ; lists++ {
		pids, err := h.PIDs()
		if err != nil {
			return nil, nil, fmt.Errorf("list processes: %w", err)
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return known[pid] })
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			known[pid] = true
			if lists > maxLists {
				gaps = append(gaps, host.Gap{PID: pid, What: posix.GapDescriptors, Why: posix.WhyBegan})
				continue
			}
			p, err := h.proc(ctx, pid)
			switch {
			case errors.Is(err, host.ErrNotFound):
				gaps = append(gaps, host.Gap{PID: pid, What: posix.GapProcess, Why: posix.WhyEnded})
			case err != nil:
				gaps = append(gaps, host.Gap{PID: pid, What: posix.GapDescriptors, Why: err.Error()})
			}
			if p.name != "" {
				t.procs = append(t.procs, p)
			}
		}
		if lists > maxLists {
			break
		}
	}
	ms, err := h.network()
	if err == nil {
		var cs []connection
		cs, err = parseConnections(ms)
		t.setConnections(cs)
	}
	if err != nil {
		t.untold = true
		gaps = append(gaps, host.Gap{What: "states and directions of connections", Why: err.Error()})
	}
	if b, err := h.read("/etc/name_to_major"); err == nil {
		t.slaves, t.masters = parseMajors(b)
	}
	if t.slaves == 0 || t.masters == 0 {
		gaps = append(gaps, host.Gap{What: "pseudo terminals", Why: "/etc/name_to_major does not tell which devices they are"})
	}
	return t, gaps, nil
}

// errChanged says that a process became another program, or its pid another's, while its descriptors were read.
var errChanged = errors.New("it changed while it was looked at")

// errDeadline says that there was no time left for the descriptors of a process.
var errDeadline = errors.New("bound: deadline")

// proc reads a process with its descriptors; with an error, what of it is sure. The kernel's own processes, and who has ended and waits
// for its parent, have no descriptors.
func (h *Host) proc(ctx context.Context, pid int) (proc, error) {
	before, err := h.psinfo(pid)
	if err != nil {
		return proc{}, err
	}
	p := proc{psinfo: before}
	if ctx.Err() != nil {
		return p, errDeadline
	}
	dir := procPath(pid, "fdinfo")
	fds, err := h.numbers(dir)
	if err != nil && !errors.Is(err, host.ErrNotFound) {
		return p, err
	}
	for _, fd := range fds {
		if ctx.Err() != nil {
			return p, errDeadline
		}
		b, err := h.read(path.Join(dir, strconv.Itoa(fd)))
		if errors.Is(err, host.ErrNotFound) {
			continue // closed meanwhile
		}
		var i info
		if err == nil {
			i, err = parseInfo(b)
		}
		if err != nil {
			return p, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		p.infos = append(p.infos, i)
	}
	after, err := h.psinfo(pid)
	if err != nil {
		return proc{}, err
	}
	if !after.start.Equal(before.start) || after.name != before.name {
		return proc{psinfo: after}, errChanged
	}
	return p, nil
}

// Find looks for the socket of a flow among all descriptors, and where nobody holds it, in the network stack's tables; then once more,
// since it may have been handed on meanwhile.
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
		if !errors.Is(err, host.ErrNotFound) {
			return s, err
		}
		s, err = t.unheld(f)
		unread := slices.ContainsFunc(gaps, posix.HidesHolder)
		switch {
		case err != nil && t.untold && unread:
			return host.Socket{}, errors.New("not among the descriptors that could be read")
		case err != nil:
			return host.Socket{}, err
		case !again:
			continue
		case unread:
			s.Object, s.UID = "socket:[unread]", posix.UnknownUID // who has it may be one of those
		}
		return s, nil
	}
}

// held finds the socket of a flow that processes have. Of several users it is that of who made the connection, if he holds it.
func (t *tables) held(f host.Flow) (host.Socket, error) {
	ps, _ := t.processes()
	s, users, err := posix.Held(ps, f)
	if err != nil {
		return host.Socket{}, err
	}
	creator := t.connections[[2]netip.AddrPort{s.Local, s.Remote}].creator
	if uid, holds := users[creator]; holds && s.UID == posix.UnknownUID {
		s.UID = uid
	}
	return s, nil
}

// unheld finds the connection of a flow in the network stack's tables.
func (t *tables) unheld(f host.Flow) (host.Socket, error) {
	for _, c := range t.connections {
		if f.Protocol == host.TCP && posix.IsOf(f, c.local, c.remote) {
			s := host.Socket{Protocol: host.TCP, Local: c.local, Remote: c.remote, State: tcpStates[c.state]}
			s.Direction, s.DirectionSource = t.direction(c)
			return s, nil
		}
	}
	return host.Socket{}, host.ErrNotFound
}
