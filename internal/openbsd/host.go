package openbsd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Names of sysctl(2) (sys/sysctl.h, net/route.h). The last two of kern.file and kern.proc are the size of a record and how many
// may come.
var (
	mibHostName = []int32{1, 10}
	mibOS       = []int32{1, 1}
	mibRelease  = []int32{1, 2}
	mibVersion  = []int32{1, 4}
	mibBootTime = []int32{1, 21}
	mibMachine  = []int32{6, 1}

	mibFiles   = []int32{1, 73, 2, -1, fileSize, many} // KERN_FILE_BYPID, of all processes
	mibSockets = []int32{1, 73, 1, 2, fileSize, many}  // KERN_FILE_BYFILE, DTYPE_SOCKET: also those that nobody holds
	mibProcs   = []int32{1, 66, 7, 0, procSize, many}  // KERN_PROC_KTHREAD: the kernel's own too, and so swapper
)

const many = 1 << 30

func mibProcess(pid int) []int32     { return []int32{1, 66, 1, int32(pid), procSize, 1} }
func mibArguments(pid int) []int32   { return []int32{1, 55, int32(pid), 1} }
func mibEnvironment(pid int) []int32 { return []int32{1, 55, int32(pid), 3} }
func mibDirectory(pid int) []int32   { return []int32{1, 78, int32(pid)} }
func mibDomain(table uint32) []int32 { return []int32{4, 17, 0, 0, 5, int32(table)} }

// A kernel is what a host asks.
type kernel struct {
	// sysctl gives the value of a name. The error is ErrNotFound where a process is named that has ended.
	sysctl    func(mib []int32) ([]byte, error)
	addresses func() ([]netip.Addr, error)
	// tail reads the end of a file: see [posix.Tail].
	tail    func(path string, limit, record int) ([]byte, bool, error)
	devices func() map[uint32]string
	pid     int // of the daemon
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
func (*Host) Sources() []string { return []string{"sysctl"} }

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
	for _, v := range []struct {
		what string
		mib  []int32
		to   *string
	}{{"host name", mibHostName, &f.Name}, {"operating system", mibOS, &f.OS}, {"kernel release", mibRelease, &f.Release},
		{"kernel version", mibVersion, &f.Kernel}, {"machine", mibMachine, &f.Arch}} {
		b, err := h.sysctl(v.mib)
		gap(v.what, err)
		*v.to = strings.TrimSpace(str(b))
	}
	var err error
	f.BootTime, err = h.bootTime()
	gap("boot time", err)
	f.Addresses, err = h.addresses()
	gap("addresses", err)
	gap("clock", errors.New("this system does not tell how well its clock is kept"))
	domain, err := h.ownDomain()
	gap("routing domain", err)
	f.NetNS = uint64(domain)
	return f, gaps
}

func (h *Host) bootTime() (time.Time, error) {
	b, err := h.sysctl(mibBootTime)
	if err != nil {
		return time.Time{}, err
	}
	return posix.ParseTimeval(b)
}

// ownDomain is the routing domain of the daemon itself.
func (h *Host) ownDomain() (uint32, error) {
	ps, err := h.procs(mibProcess(h.pid))
	if err != nil || len(ps) == 0 {
		return 0, err
	}
	t := &tables{domains: map[uint32]uint32{}, procs: ps}
	h.learnDomains(t)
	return t.domain(ps[0].table), nil
}

// tables reads the processes, then the descriptors or sockets that a name of sysctl(2) lists.
func (h *Host) tables(mib []int32) (*tables, error) {
	t := &tables{domains: map[uint32]uint32{}}
	var err error
	if t.procs, err = h.procs(mibProcs); err != nil {
		return nil, err
	}
	if t.files, err = h.files(mib); err != nil {
		return nil, err
	}
	h.learnDomains(t)
	return t, nil
}

func (h *Host) procs(mib []int32) ([]proc, error) {
	b, err := h.sysctl(mib)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return parseProcs(b)
}

func (h *Host) files(mib []int32) ([]file, error) {
	b, err := h.sysctl(mib)
	if err != nil {
		return nil, fmt.Errorf("list descriptors: %w", err)
	}
	return parseFiles(b)
}

// learnDomains asks which domains the routing tables are of that sockets and processes use.
func (h *Host) learnDomains(t *tables) {
	learn := func(table uint32) {
		if _, known := t.domains[table]; known || table == 0 {
			return
		}
		t.domains[table] = table // as the first table of each domain is
		if b, err := h.sysctl(mibDomain(table)); err == nil {
			if d, err := parseDomain(b); err == nil {
				t.domains[table] = d
			}
		}
	}
	for _, p := range t.procs {
		learn(p.table)
	}
	for _, f := range t.files {
		learn(f.socket.table)
	}
}

// Find looks for the socket of a flow among those that processes hold, and where none has it, among all: nobody holds what is
// not accepted yet, or has been closed. The kernel lists sockets, and does not look one up: TCPCTL_IDENT knows outbound
// connections alone, and only whose they are.
func (h *Host) Find(ctx context.Context, f host.Flow) (host.Socket, error) {
	held := func() (host.Socket, error) { return h.find(ctx, f, mibFiles) }
	s, err := held()
	if !errors.Is(err, host.ErrNotFound) {
		return s, err
	}
	loose, err := h.find(ctx, f, mibSockets)
	if err != nil {
		return host.Socket{}, err
	}
	if s, err = held(); err == nil { // accepted meanwhile
		return s, nil
	}
	loose.Object, loose.UID = "", 0
	return loose, nil
}

func (h *Host) find(ctx context.Context, f host.Flow, mib []int32) (host.Socket, error) {
	if ctx.Err() != nil {
		return host.Socket{}, ctx.Err()
	}
	if !f.Remote.IsValid() {
		return host.Socket{}, host.ErrNotFound
	}
	t, err := h.tables(mib)
	if err != nil {
		return host.Socket{}, err
	}
	own, err := h.ownDomain()
	if err != nil {
		return host.Socket{}, err
	}
	for _, x := range t.files {
		e := t.ends(x.socket)
		if x.kind == typeSocket && e.kind == f.Protocol && e.domain == own && e.remote == f.Remote && e.local.Port() == f.Local.Port() &&
			(e.local.Addr() == f.Local.Addr().WithZone("") || f.Local.Addr().IsUnspecified()) {
			return t.found(x), nil
		}
	}
	return host.Socket{}, host.ErrNotFound
}

func (t *tables) found(f file) host.Socket {
	s := host.Socket{Protocol: f.socket.protocol(), Local: f.socket.local, Remote: f.socket.remote, State: f.socket.stateName(), UID: f.uid,
		Object: f.socket.object(), NetNS: uint64(t.domain(f.socket.table))}
	s.Direction, s.DirectionSource = f.socket.direction()
	return s
}

// Connections lists the TCP connections of the daemon's own routing domain that have these ports, and this local address where
// it is valid.
func (h *Host) Connections(_ context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error) {
	t, err := h.tables(mibFiles)
	if err != nil {
		return nil, err
	}
	own, err := h.ownDomain()
	if err != nil {
		return nil, err
	}
	var fs []host.Flow
	for _, x := range t.files {
		e := t.ends(x.socket)
		f := host.Flow{Protocol: e.kind, Local: e.local, Remote: e.remote}
		if e.kind == host.TCP && e.domain == own && e.remote.IsValid() && e.local.Port() == local.Port() && e.remote.Port() == remotePort &&
			(!local.Addr().IsValid() || local.Addr() == e.local.Addr()) && !slices.Contains(fs, f) {
			fs = append(fs, f)
		}
	}
	return fs, nil
}

// PIDs lists the processes of the machine.
func (h *Host) PIDs() ([]int, error) {
	procs, err := h.procs(mibProcs)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(procs))
	for _, p := range procs {
		pids = append(pids, p.pid)
	}
	return pids, nil
}
