package freebsd

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

// Names of sysctl(3) (sys/sysctl.h).
var (
	mibHostName = []int32{1, 10}
	mibOS       = []int32{1, 1}
	mibRelease  = []int32{1, 2}
	mibVersion  = []int32{1, 4}
	mibBootTime = []int32{1, 21}
	mibMachine  = []int32{6, 1}
	mibProcs    = []int32{1, 14, 8} // KERN_PROC_PROC: processes, without their threads
)

func mibProcess(pid int) []int32     { return []int32{1, 14, 1, int32(pid)} }
func mibFiles(pid int) []int32       { return []int32{1, 14, 33, int32(pid)} }
func mibArguments(pid int) []int32   { return []int32{1, 14, 7, int32(pid)} }
func mibEnvironment(pid int) []int32 { return []int32{1, 14, 35, int32(pid)} }

// A kernel is what a host asks.
type kernel struct {
	// sysctl gives the value of a name. The error is ErrNotFound where a process is named that has ended.
	sysctl func(mib []int32) ([]byte, error)
	// sysctlOf gives what a name has for a question, at most so many octets. The error is ErrNotFound where it has nothing.
	sysctlOf  func(name string, question []byte, size int) ([]byte, error)
	addresses func() ([]netip.Addr, error)
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
	b, err := h.sysctl(mibBootTime)
	if err == nil {
		f.BootTime, err = posix.ParseTimeval(b)
	}
	gap("boot time", err)
	f.Addresses, err = h.addresses()
	gap("addresses", err)
	gap("clock", errors.New("this version does not ask how well the clock is kept"))
	return f, gaps
}

func (h *Host) procs(mib []int32) ([]proc, error) {
	b, err := h.sysctl(mib)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return parseProcs(b)
}

// PIDs lists the processes of the machine.
func (h *Host) PIDs() ([]int, error) {
	ps, err := h.procs(mibProcs)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(ps))
	for _, p := range ps {
		pids = append(pids, p.pid)
	}
	return pids, nil
}

// Connections lists the TCP connections that have these ports, and this local address where it is valid.
func (h *Host) Connections(ctx context.Context, local netip.AddrPort, remotePort uint16) ([]host.Flow, error) {
	t, _, err := h.tables(ctx)
	if err != nil {
		return nil, err
	}
	var fs []host.Flow
	ps, _ := t.processes()
	for _, p := range ps {
		for _, d := range p.Descriptors {
			f := host.Flow{Protocol: d.Kind, Local: d.Local, Remote: d.Remote}
			if d.Kind == host.TCP && d.Remote.IsValid() && d.Local.Port() == local.Port() && d.Remote.Port() == remotePort &&
				(!local.Addr().IsValid() || local.Addr() == d.Local.Addr()) && !slices.Contains(fs, f) {
				fs = append(fs, f)
			}
		}
	}
	return fs, nil
}

// Abilities says, a line each, what can be seen of this machine with the privileges that the program has, found by trying.
func (h *Host) Abilities() []string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t, gaps, err := h.tables(ctx)
	if err != nil {
		return []string{"processes by sysctl: no: " + err.Error()}
	}
	lines := []string{fmt.Sprintf("processes by sysctl: yes (%d)", len(t.procs))}
	for _, g := range posix.SumGaps(gaps) {
		lines = append(lines, fmt.Sprintf("%s: no (%s): run as root", g.What, g.Why))
	}
	return lines
}
