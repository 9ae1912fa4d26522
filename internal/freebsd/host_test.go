package freebsd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/host/hosttest"
	"github.com/stopd/stopd/internal/posix"
	"github.com/stopd/stopd/trace"
)

const dir = "testdata/amd64"

func record(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var errRefused = errors.New("operation not permitted")

// hostOf makes a host of what kern.proc and kern.proc.filedesc give. The descriptors of the refused may not be read.
func hostOf(procs []byte, files map[int][]byte, refused ...int) *Host {
	boot := binary.LittleEndian.AppendUint64(nil, 986000000)
	values := map[string][]byte{
		fmt.Sprint(mibProcs): procs, fmt.Sprint(mibHostName): []byte("host\x00"), fmt.Sprint(mibOS): []byte("FreeBSD\x00"),
		fmt.Sprint(mibRelease): []byte("14.2-RELEASE\x00"), fmt.Sprint(mibVersion): []byte("FreeBSD 14.2-RELEASE GENERIC\n\x00"),
		fmt.Sprint(mibMachine): []byte("amd64\x00"), fmt.Sprint(mibBootTime): append(boot, make([]byte, 8)...),
	}
	for b := procs; len(b) >= procSize; b = b[procSize:] {
		pid := signed(b, procPID)
		values[fmt.Sprint(mibProcess(pid))] = b[:procSize]
		values[fmt.Sprint(mibFiles(pid))] = files[pid]
		values[fmt.Sprint(mibArguments(pid))] = []byte("a\x00-b\x00")
		values[fmt.Sprint(mibEnvironment(pid))] = []byte("HOME=/\x00")
	}
	return newHost(kernel{
		sysctl: func(mib []int32) ([]byte, error) {
			if slices.ContainsFunc(refused, func(pid int) bool { return slices.Equal(mib, mibFiles(pid)) }) {
				return nil, errRefused
			}
			if slices.Equal(mib, mibFiles(0)) {
				return nil, fmt.Errorf("sysctl: %w", syscall.ENOENT) // as of the kernel's own processes
			}
			if b, ok := values[fmt.Sprint(mib)]; ok {
				return b, nil
			}
			return nil, host.ErrNotFound
		},
		sysctlOf:  func(string, []byte, int) ([]byte, error) { return nil, errRefused },
		addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil },
	})
}

func made(t testing.TB, refused ...int) *Host {
	files := map[int][]byte{}
	for _, pid := range []int{8000, 8337, 8338, 8339} {
		files[pid] = record(t, fmt.Sprintf("%d-files", pid))
	}
	return hostOf(record(t, "procs"), files, refused...)
}

func flow(local, remote string) host.Flow {
	return host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

func TestMadeHost(t *testing.T) {
	process := func(pid, ppid int, id uint32, session int, name, exe string) hosttest.Process {
		return hosttest.Process{PID: pid, PPID: ppid, Name: name, Exe: exe, Args: []string{"a", "-b"}, CWD: "/home", UID: id, GID: id, Session: session, PGRP: session}
	}
	one := func(pid, fd int, m host.Mode) []hosttest.End { return []hosttest.End{{PID: pid, FD: fd, Mode: m}} }
	hosttest.Run(t, made(t), hosttest.Arrangement{
		Processes: []hosttest.Process{process(8000, 1, 0, 8000, "sshd", "/usr/sbin/sshd"), process(8337, 8000, 0, 8337, "sshd", "/usr/sbin/sshd"),
			process(8338, 8337, 1000, 8338, "csh", "/bin/csh"), process(8339, 8338, 1000, 8338, "telnet", "/usr/bin/telnet")},
		Connections: []hosttest.Connection{
			{Name: "in", Flow: flow("192.0.2.2:22", "198.51.100.1:616"), Direction: host.Inbound, Holders: one(8337, 4, host.ReadWrite)},
			{Name: "out", Flow: flow("192.0.2.2:968", "203.0.113.3:23"), Direction: host.UnknownDirection, UID: 1000, Holders: one(8339, 3, host.ReadWrite)},
		},
		Channels: []hosttest.Channel{
			{Name: "unix", Kind: host.Unix, Sides: []hosttest.Side{{Holders: one(8337, 6, host.ReadWrite), Type: "stream", Path: "/tmp/agent.8337", Peers: true},
				{Holders: one(8338, 3, host.ReadWrite), Type: "stream", PeerPath: "/tmp/agent.8337", Peers: true}}},
			{Name: "terminal", Kind: host.PTY, Sides: []hosttest.Side{{Holders: one(8337, 5, host.ReadWrite), Side: host.Master, Peers: true},
				{Holders: []hosttest.End{{PID: 8338, FD: 0, Mode: host.ReadWrite}, {PID: 8338, FD: 1, Mode: host.ReadWrite}}, Path: "/dev/pts/3", Side: host.Slave, Peers: true}}},
			{Name: "pipe", Kind: host.Pipe, Sides: []hosttest.Side{{Holders: one(8338, 4, host.Write), Peers: true}, {Holders: one(8339, 4, host.Read), Peers: true}}},
		},
		Absent: []host.Flow{flow("192.0.2.2:22", "198.51.100.1:617")},
		Ended:  9999,
	})
}

// The trace goes from telnet by its parents to the connection that sshd accepted; where that process may not be read a gap says so.
func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		refused  []int
		previous []string
		gap      string
	}{
		{nil, []string{"198.51.100.1:616 inbound"}, ""},
		{[]int{8337}, nil, "8337 descriptors: " + errRefused.Error()},
	} {
		h := made(t, tt.refused...)
		s, err := h.Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
		if err != nil {
			t.Fatal(err)
		}
		snap, err := h.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		facts, _ := h.Facts(t.Context())
		r := trace.Run(t.Context(), snap, trace.Question{Socket: s, Host: facts}, trace.Defaults)
		var previous, gaps, processes []string
		for _, p := range r.Previous {
			previous = append(previous, fmt.Sprint(p.Remote, " ", p.Direction))
		}
		for _, g := range r.Gaps {
			gaps = append(gaps, fmt.Sprintf("%d %s: %s", g.PID, g.What, g.Why))
		}
		for _, p := range r.Processes {
			processes = append(processes, fmt.Sprintf("%d %s %s %s", p.PID, p.Role, p.Via.By, p.TTY))
		}
		if d := cmp.Diff(tt.previous, previous); d != "" || tt.gap != "" && !slices.Contains(gaps, tt.gap) {
			t.Errorf("refused %v: gaps %q, previous hosts (-want +got):\n%s", tt.refused, gaps, d)
		}
		want := []string{"8339 primary owner pts/3", "8338 primary parent pts/3", "8337 primary parent ", "8000 primary parent ", "1 primary parent ", "0 primary parent "}
		if d := cmp.Diff(want, processes); d != "" {
			t.Errorf("refused %v: processes (-want +got):\n%s", tt.refused, d)
		}
	}
}

// Who listens on the port that he connects from makes his connection look accepted: whoever asks about it is not named for that.
func TestListenerOnOwnPort(t *testing.T) {
	files := map[int][]byte{}
	for _, pid := range []int{8000, 8337, 8338, 8339} {
		files[pid] = record(t, fmt.Sprintf("%d-files", pid))
	}
	bound := host.Descriptor{Kind: host.TCP, Local: netip.MustParseAddrPort("0.0.0.0:968"), Object: "bound"}
	files[8339] = slices.Concat(files[8339], fileOf(9, bound, func(host.Object) uint64 { return 0xfffff80000000080 }))
	h := hostOf(record(t, "procs"), files)
	s, err := h.Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
	if err != nil || s.Direction != host.Inbound || s.DirectionSource != host.FromListener {
		t.Fatalf("%+v, %v", s, err)
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	facts, _ := h.Facts(t.Context())
	r := trace.Run(t.Context(), snap, trace.Question{Socket: s, Host: facts}, trace.Defaults)
	if len(r.Previous) != 1 || r.Previous[0].Remote != netip.MustParseAddrPort("198.51.100.1:616") {
		t.Errorf("previous hosts: %+v", r.Previous)
	}
}

// Whose descriptors may not be read may hold the socket: it is not said that nobody does.
func TestUnread(t *testing.T) {
	s, err := made(t, 8339).Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
	if err == nil || errors.Is(err, host.ErrNotFound) {
		t.Errorf("%+v, %v", s, err)
	}
}

// connected is a descriptor of the socket at an address of the kernel.
func connected(at uint64, local, remote netip.AddrPort) file {
	return file{kind: typeSocket, flags: 3, addr: at, socket: socket{family: familyInet, kind: socketStream, proto: protoTCP, local: local, remote: remote}}
}

func of(pid int, uid uint32, fs ...file) look { return look{proc{pid: pid, ppid: 1, euid: uid}, fs} }

// Of two sockets with the same ends, in two network stacks, none is chosen, and neither is joined to whatever has the other ends.
func TestTwoStacks(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.2:968"), netip.MustParseAddrPort("192.0.2.2:23")
	near := func(at uint64) file { return connected(at, a, b) }
	far := connected(9, b, a)
	for _, tt := range []struct {
		name  string
		procs []look
		peer  host.Object // of the far one
		gaps  []int
	}{
		{"one", []look{of(5, 0, near(1)), of(6, 0, near(1)), of(7, 0, far)}, "socket:[1]", nil},
		{"two", []look{of(5, 0, near(1)), of(6, 0, near(2)), of(7, 0, far)}, "", []int{5, 6, 7}},
	} {
		tab := &tables{procs: tt.procs}
		ps, gaps := tab.processes()
		var pids []int
		for _, g := range gaps {
			pids = append(pids, g.PID)
		}
		if d := ps[2].Descriptors[0]; d.Peer != tt.peer || !slices.Equal(pids, tt.gaps) {
			t.Errorf("%s: joined to %q, gaps %+v", tt.name, d.Peer, gaps)
		}
		s, err := tab.held(host.Flow{Protocol: host.TCP, Local: a, Remote: b})
		if errors.Is(err, posix.ErrStacks) != (tt.peer == "") || (err == nil) != (s.Object != "") {
			t.Errorf("%s: %+v, %v", tt.name, s, err)
		}
	}
}

// Whose a connection is the kernel tells; where it does not, it is the user whom all holders have.
func TestUserOfAConnection(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.2:968"), netip.MustParseAddrPort("203.0.113.3:23")
	near := connected(1, a, b)
	f := host.Flow{Protocol: host.TCP, Local: a, Remote: b}
	for _, tt := range []struct {
		procs []look
		want  uint32
	}{
		{[]look{of(5, 1000, near), of(6, 1000, near), of(7, 0)}, 1000},
		{[]look{of(5, 0, near), of(6, 1000, near)}, posix.UnknownUID},
	} {
		if s, err := (&tables{procs: tt.procs}).held(f); err != nil || s.UID != tt.want {
			t.Errorf("%+v, %v; want %d", s, err, tt.want)
		}
	}
	h := made(t)
	var asked []string
	h.sysctlOf = func(name string, question []byte, _ int) ([]byte, error) {
		asked = append(asked, name+" "+string(question))
		return []byte{0, 0, 0, 0, 80, 0, 0, 0}, nil
	}
	name, question := formatEnds(a, b)
	if s, err := h.Find(t.Context(), f); err != nil || s.UID != 80 || !slices.Equal(asked, []string{name + " " + string(question)}) {
		t.Errorf("%+v, %v, asked %q", s, err, asked)
	}
}

// What the kernel has no connection of is looked for once.
func TestNoConnection(t *testing.T) {
	for _, tt := range []struct {
		says  error
		looks int
	}{{host.ErrNotFound, 1}, {errRefused, 2}} {
		h := made(t)
		sysctl, lists := h.sysctl, 0
		h.sysctl = func(mib []int32) ([]byte, error) {
			if slices.Equal(mib, mibProcs) {
				lists++
			}
			return sysctl(mib)
		}
		h.sysctlOf = func(string, []byte, int) ([]byte, error) { return nil, tt.says }
		if s, err := h.Find(t.Context(), flow("192.0.2.2:969", "203.0.113.3:23")); !errors.Is(err, host.ErrNotFound) || lists != 3*tt.looks {
			t.Errorf("the kernel says %v: %+v, %v, processes listed %d times", tt.says, s, err, lists)
		}
	}
}

// A pid that was used again while the host was looked at is nobody's.
func TestUsedAgain(t *testing.T) {
	h := made(t)
	sysctl, looks := h.sysctl, 0
	h.sysctl = func(mib []int32) ([]byte, error) {
		b, err := sysctl(mib)
		if slices.Equal(mib, mibProcs) {
			if looks++; looks == 3 {
				b = slices.Clone(b)
				b[5*procSize+procStart]++ // telnet's
			}
		}
		return b, err
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := snap.Process(t.Context(), 8339); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("%+v, %v", p, err)
	}
	if gaps := snap.Gaps(); len(gaps) != 1 || gaps[0].PID != 8339 {
		t.Errorf("%+v", gaps)
	}
}

// Who begins or ends while the host is looked at is in a report: what he had is read, or there is a gap.
func TestDuringTheLook(t *testing.T) {
	telnet := 5 // its place among the processes
	without := func(b []byte) []byte { return slices.Delete(slices.Clone(b), telnet*procSize, (telnet+1)*procSize) }
	hidden := func(h *Host) {
		sysctl := h.sysctl
		h.sysctl = func(mib []int32) ([]byte, error) {
			if slices.Equal(mib, mibFiles(8339)) {
				return nil, host.ErrNotFound
			}
			return sysctl(mib)
		}
	}
	asEnded := func(b []byte) []byte {
		b = slices.Clone(b)
		b[telnet*procSize+procStat] = zombie
		return b
	}
	for _, tt := range []struct {
		name  string
		hide  bool                  // its descriptors
		lists []func([]byte) []byte // nil is the list as it is; the last ones are so too
		found bool                  // who holds its connection
		gap   string                // in a report of somebody else
	}{
		{"it began", false, []func([]byte) []byte{without}, true, ""},
		{"it began late", false, []func([]byte) []byte{without, without}, true, "descriptors: " + posix.WhyBegan},
		{"it ended", false, []func([]byte) []byte{nil, nil, without, without, without, without}, false, "process: " + posix.WhyEnded},
		{"it ended before it was read", true, []func([]byte) []byte{nil, nil, asEnded, without, without, without}, false, "process: " + posix.WhyEnded},
		{"it may not be seen", true, nil, false, "descriptors: the kernel does not tell them"},
	} {
		open := func() *Host {
			h := made(t)
			if tt.hide {
				hidden(h)
			}
			sysctl, looks := h.sysctl, 0
			h.sysctl = func(mib []int32) ([]byte, error) {
				b, err := sysctl(mib)
				if slices.Equal(mib, mibProcs) {
					if looks++; looks <= len(tt.lists) && tt.lists[looks-1] != nil {
						b = tt.lists[looks-1](b)
					}
				}
				return b, err
			}
			return h
		}
		s, err := open().Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
		if found := err == nil && s.Object != ""; found != tt.found {
			t.Errorf("%s: %+v, %v", tt.name, s, err)
		}
		snap, err := open().Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var gaps []string
		for _, g := range snap.Gaps() {
			gaps = append(gaps, fmt.Sprintf("%s: %s", g.What, g.Why))
			if g.PID != 8339 {
				t.Errorf("%s: %+v", tt.name, g)
			}
		}
		if got := strings.Join(gaps, ", "); got != tt.gap {
			t.Errorf("%s: gaps %q, not %q", tt.name, got, tt.gap)
		}
	}
}
