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

// A kernel is what a host asks.
type kernel struct {
	// read reads a file, list a directory and link a symbolic link. The error is ErrNotFound where it is not there (any more).
	read func(path string) ([]byte, error)
	list func(path string) ([]string, error)
	link func(path string) (string, error)
	// network asks the network stack for its tables.
	network   func() ([]message, error)
	addresses func() ([]netip.Addr, error)
	// uname gives system, host name, release, version and machine.
	uname func() ([5]string, error)
}

// A Host is this machine.
type Host struct {
	kernel
	names *posix.Accounts
}

func newHost(k kernel) *Host { return &Host{kernel: k, names: posix.NewAccounts()} }

// Close frees what the host holds, which is nothing.
func (*Host) Close() error { return nil }

// Sources says where what is reported comes from.
func (*Host) Sources() []string { return []string{"proc", "mib2"} }

// UserName returns the name of a user; empty where it is not known.
func (h *Host) UserName(ctx context.Context, uid uint32) string { return h.names.UserName(ctx, uid) }

// Account returns the account of a user; without a name where none is known.
func (h *Host) Account(ctx context.Context, uid uint32) posix.Account { return h.names.Of(ctx, uid) }

// Facts returns what identifies this host.
func (h *Host) Facts(context.Context) (host.Facts, []host.Gap) {
	var f host.Facts
	var gaps []host.Gap
	gap := func(what string, err error) {
		if err != nil {
			gaps = append(gaps, host.Gap{What: what, Why: err.Error()})
		}
	}
	u, err := h.uname()
	gap("operating system", err)
	f.OS, f.Name, f.Release, f.Arch = u[0], u[1], u[2], u[4]
	f.Kernel = fmt.Sprintf("%s %s %s", u[0], u[2], u[3])
	first, err := h.psinfo(0) // the kernel itself, which began with the host
	gap("boot time", err)
	f.BootTime = first.start
	f.Addresses, err = h.addresses()
	gap("addresses", err)
	gap("clock", errors.New("this system does not tell how well its clock is kept"))
	return f, gaps
}

func procPath(pid int, name string) string { return path.Join("/proc", strconv.Itoa(pid), name) }

func (h *Host) psinfo(pid int) (psinfo, error) {
	b, err := h.read(procPath(pid, "psinfo"))
	if err != nil {
		return psinfo{}, err
	}
	return parsePsinfo(b)
}

// PIDs lists the processes of the machine, ascending.
func (h *Host) PIDs() ([]int, error) { return h.numbers("/proc") }

// numbers lists the entries of a directory that are numbers, ascending.
func (h *Host) numbers(dir string) ([]int, error) {
	names, err := h.list(dir)
	if err != nil {
		return nil, err
	}
	var ns []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n >= 0 {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns, nil
}

// tables reads all processes with their descriptors, and the network stack. What it could not read is a gap.
func (h *Host) tables(ctx context.Context) (*tables, []host.Gap, error) {
	t := &tables{}
	var gaps []host.Gap
	pids, err := h.PIDs()
	if err != nil {
		return nil, nil, fmt.Errorf("list processes: %w", err)
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			gaps = append(gaps, host.Gap{What: "processes", Why: "bound: deadline"})
			break
		}
		p, err := h.proc(pid)
		switch {
		case errors.Is(err, host.ErrNotFound):
			continue // it ended since it was listed
		case err != nil:
			gaps = append(gaps, host.Gap{PID: pid, What: posix.GapDescriptors, Why: err.Error()})
		}
		if p.name != "" {
			t.procs = append(t.procs, p)
		}
	}
	ms, err := h.network()
	if err == nil {
		var cs []connection
		cs, err = parseConnections(ms)
		t.setConnections(cs)
	}
	if err != nil {
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

// proc reads a process with its descriptors; with an error, what of it is sure.
func (h *Host) proc(pid int) (proc, error) {
	before, err := h.psinfo(pid)
	if err != nil {
		return proc{}, err
	}
	p := proc{psinfo: before}
	dir := procPath(pid, "fdinfo")
	fds, err := h.numbers(dir)
	if err != nil {
		return p, err
	}
	for _, fd := range fds {
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

// Find looks for the socket of a flow among all descriptors, and where nobody holds it, in the network stack's tables.
func (h *Host) Find(ctx context.Context, f host.Flow) (host.Socket, error) {
	if !f.Remote.IsValid() {
		return host.Socket{}, host.ErrNotFound
	}
	t, gaps, err := h.tables(ctx)
	if err != nil {
		return host.Socket{}, err
	}
	is := func(local, remote netip.AddrPort) bool {
		return remote == f.Remote && local.Port() == f.Local.Port() && (local.Addr() == f.Local.Addr().WithZone("") || f.Local.Addr().IsUnspecified())
	}
	ps, _ := t.processes()
	for _, p := range ps {
		for _, d := range p.Descriptors {
			if d.Kind == f.Protocol && is(d.Local, d.Remote) {
				return host.Socket{Protocol: d.Kind, Local: d.Local, Remote: d.Remote, State: d.State, Direction: d.Direction, DirectionSource: d.DirectionSource,
					UID: *p.EUID, Inode: d.Inode, Object: d.Object}, nil
			}
		}
	}
	for _, c := range t.connections {
		if f.Protocol == host.TCP && is(c.local, c.remote) {
			s := host.Socket{Protocol: host.TCP, Local: c.local, Remote: c.remote, State: tcpStates[c.state]}
			s.Direction, s.DirectionSource = t.direction(c)
			if unread := slices.IndexFunc(gaps, func(g host.Gap) bool { return g.What == posix.GapDescriptors }); unread >= 0 {
				s.Object = "socket:[unread]" // who has it may be one of those
				s.UID = 1<<32 - 1
			}
			return s, nil
		}
	}
	return host.Socket{}, host.ErrNotFound
}

// Connections lists the TCP connections that have these ports, and this local address where it is valid.
func (h *Host) Connections(_ context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error) {
	ms, err := h.network()
	if err != nil {
		return nil, err
	}
	cs, err := parseConnections(ms)
	if err != nil {
		return nil, err
	}
	var fs []host.Flow
	for _, c := range cs {
		if c.state != stateListen && c.local.Port() == local.Port() && c.remote.Port() == remotePort && (!local.Addr().IsValid() || local.Addr() == c.local.Addr()) {
			fs = append(fs, host.Flow{Protocol: host.TCP, Local: c.local, Remote: c.remote})
		}
	}
	return fs, nil
}

// Abilities says, a line each, what can be seen of this machine with the privileges that the program has, found by trying.
func (h *Host) Abilities() []string {
	t, gaps, err := h.tables(context.Background())
	if err != nil {
		return []string{"processes by /proc: no: " + err.Error()}
	}
	lines := []string{fmt.Sprintf("processes by /proc: yes (%d)", len(t.procs))}
	for _, g := range posix.SumGaps(gaps) {
		lines = append(lines, fmt.Sprintf("%s: no (%s): run as root", g.What, g.Why))
	}
	return lines
}
