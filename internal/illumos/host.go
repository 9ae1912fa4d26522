package illumos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"slices"
	"strconv"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// A kernel is what a host asks.
type kernel struct {
	// read reads a file, list a directory and link a symbolic link. The error is ErrNotFound where it is not there (any more), and errCut
	// where a file has more than what was read.
	read func(path string) ([]byte, error)
	list func(path string) ([]string, error)
	link func(path string) (string, error)
	// network asks the network stack for its tables.
	network   func() ([]message, error)
	addresses func() ([]netip.Addr, error)
	// uname gives system, host name, release, version and machine.
	uname func() ([5]string, error)
}

// maxFile is how much is read of a file of /proc: no descriptor has more, and most arguments less.
const maxFile = 1 << 20

var errCut = fmt.Errorf("bound: the first %d octets", maxFile)

// upTo reads so many octets. With errCut it returns those there are before.
func upTo(most int64, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		return b[:most], errCut
	}
	return b, err
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
