package illumos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
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

// made is the host of testdata, whose /proc is its files. Refused are those that may not be read.
func made(t testing.TB, refused ...string) *Host {
	t.Helper()
	files := map[string][]byte{"/etc/name_to_major": []byte("clone 11\nptm 23\npts 24\nsad 72\n")}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string][]string{}
	for _, e := range entries {
		pid, name, _ := strings.Cut(e.Name(), "-")
		name = strings.Replace(name, "fdinfo-", "fdinfo/", 1)
		if name == "tcp" || strings.HasPrefix(name, "connections") {
			continue
		}
		at := path.Join("/proc", pid, name)
		files[at] = record(t, e.Name())
		for d := at; d != "/"; d = path.Dir(d) {
			if up := path.Dir(d); !slices.Contains(dirs[up], path.Base(d)) {
				dirs[up] = append(dirs[up], path.Base(d))
			}
		}
	}
	for _, pid := range dirs["/proc"] {
		files[path.Join("/proc", pid, "argv")] = []byte("a\x00-b\x00")
		files[path.Join("/proc", pid, "environ")] = []byte("HOME=/\x00SSH_CLIENT=198.51.100.1 616 22\x00")
	}
	k := kernel{
		read: func(p string) ([]byte, error) {
			if slices.ContainsFunc(refused, func(r string) bool { return strings.HasPrefix(p, r) }) {
				return nil, os.ErrPermission
			}
			if b, ok := files[p]; ok {
				return b, nil
			}
			return nil, host.ErrNotFound
		},
		list: func(p string) ([]string, error) {
			if slices.ContainsFunc(refused, func(r string) bool { return strings.HasPrefix(p, r) }) {
				return nil, os.ErrPermission
			}
			if path.Base(p) == "fdinfo" && dirs[path.Dir(p)] != nil {
				return dirs[p], nil
			}
			if names, ok := dirs[p]; ok {
				return names, nil
			}
			return nil, host.ErrNotFound
		},
		link: func(p string) (string, error) { return "/usr/" + path.Base(p), nil },
		network: func() ([]message, error) {
			return []message{{levelTCP, nameTable, record(t, "0-tcp")}, {levelTCP, nameConns, record(t, "0-connections")}, {levelTCP6, nameConn6, record(t, "0-connections6")}}, nil
		},
		addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil },
		uname:     func() ([5]string, error) { return [5]string{"SunOS", "host", "5.11", "illumos-0", "i86pc"}, nil },
	}
	return newHost(k)
}

func flow(local, remote string) host.Flow {
	return host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}
}

func TestMadeHost(t *testing.T) {
	process := func(pid, ppid int, id uint32, session int, name string) hosttest.Process {
		return hosttest.Process{PID: pid, PPID: ppid, Name: name, Exe: "/usr/a.out", Args: []string{"a", "-b"}, CWD: "/usr/cwd", UID: id, GID: id, Session: session, PGRP: session}
	}
	one := func(pid, fd int, m host.Mode) []hosttest.End { return []hosttest.End{{PID: pid, FD: fd, Mode: m}} }
	hosttest.Run(t, made(t), hosttest.Arrangement{
		Processes: []hosttest.Process{process(8000, 1, 0, 8000, "sshd"), process(8337, 8000, 0, 8337, "sshd"), process(8338, 8337, 1000, 8338, "csh"),
			process(8339, 8338, 1000, 8338, "telnet")},
		Connections: []hosttest.Connection{
			{Name: "in", Flow: flow("192.0.2.2:22", "198.51.100.1:616"), State: "ESTABLISHED", Direction: host.Inbound, Holders: one(8337, 4, host.ReadWrite)},
			{Name: "out", Flow: flow("192.0.2.2:968", "203.0.113.3:23"), State: "ESTABLISHED", Direction: host.UnknownDirection, UID: 1000, Holders: one(8339, 3, host.ReadWrite)},
		},
		Channels: []hosttest.Channel{
			{Name: "unix", Kind: host.Unix, Sides: []hosttest.Side{{Holders: one(8337, 6, host.ReadWrite), Type: "stream", Peers: true}, {Holders: one(8338, 3, host.ReadWrite), Type: "stream", Peers: true}}},
			{Name: "terminal", Kind: host.PTY, Sides: []hosttest.Side{{Holders: one(8337, 5, host.ReadWrite), Path: "/devices/pseudo/clone@0:ptm", Side: host.Master, Peers: true},
				{Holders: []hosttest.End{{PID: 8338, FD: 0, Mode: host.ReadWrite}, {PID: 8338, FD: 1, Mode: host.ReadWrite}}, Path: "/dev/pts/3", Side: host.Slave, Peers: true}}},
			{Name: "pipe", Kind: host.Pipe, Sides: []hosttest.Side{{Holders: []hosttest.End{{PID: 8338, FD: 4, Mode: host.Write}, {PID: 8339, FD: 4, Mode: host.Read}}, Peers: true}}},
		},
		Absent: []host.Flow{flow("192.0.2.2:22", "198.51.100.1:617")},
		Ended:  9999,
	})
}

// What nobody holds is found without an owner; where descriptors could not be read, its owner is not known.
func TestUnheld(t *testing.T) {
	s, err := made(t).Find(t.Context(), flow("192.0.2.2:967", "203.0.113.3:23"))
	if err != nil || s.Object != "" || s.State != "TIME-WAIT" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = made(t, "/proc/8339/fdinfo").Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
	if err != nil || s.Object == "" || s.UID == 0 {
		t.Errorf("with a process that cannot be read: %+v, %v", s, err)
	}
}

// The trace goes from telnet by its parents to the connection that sshd accepted.
func TestTrace(t *testing.T) {
	for _, tt := range []struct {
		refused  string
		previous []string
		gap      string
	}{
		{"", []string{"198.51.100.1:616 inbound"}, "8337 other end of descriptor 6"},
		{"/proc/8337/fdinfo", nil, "8337 descriptors"},
	} {
		h := made(t)
		if tt.refused != "" {
			h = made(t, tt.refused)
		}
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
			if p.Corroborated { // beside the environment's word
				previous = append(previous, fmt.Sprint(p.Remote, " ", p.Direction))
			}
		}
		for _, g := range r.Gaps {
			gaps = append(gaps, fmt.Sprint(g.PID, " ", g.What))
		}
		for _, p := range r.Processes {
			processes = append(processes, fmt.Sprintf("%d %s %s", p.PID, p.Role, p.Via.By))
		}
		if d := cmp.Diff(tt.previous, previous); d != "" || !slices.Contains(gaps, tt.gap) {
			t.Errorf("refused %q: gaps %q, previous hosts (-want +got):\n%s", tt.refused, gaps, d)
		}
		want := []string{"8339 primary owner", "8338 primary parent", "8337 primary parent", "8000 primary parent", "1 primary parent", "0 primary parent"}
		if d := cmp.Diff(want, processes); d != "" {
			t.Errorf("refused %q: processes (-want +got):\n%s", tt.refused, d)
		}
	}
}

// The number of a socket is a hash: whoever has another of the same number does not hold the asked one, and two of one process are two.
func TestSameInode(t *testing.T) {
	inet := func(fd int, local, remote string) info {
		return info{fd: fd, mode: modeSocket, inode: 102, major: 559, flags: 2, peerPID: -1, kind: socketStream,
			name: name{family: familyInet, inet: netip.MustParseAddrPort(local)}, peer: name{family: familyInet, inet: netip.MustParseAddrPort(remote)}}
	}
	local := func(peer int, path string) info {
		return info{fd: 9, mode: modeSocket, inode: 102, major: 559, flags: 2, peerPID: peer, kind: socketStream, name: name{family: familyUnix}, peer: name{family: familyUnix, path: path}}
	}
	tab := &tables{procs: []proc{
		{psinfo{pid: 5, ppid: 1, sid: 5}, []info{inet(3, "192.0.2.2:968", "203.0.113.3:23"), inet(4, "192.0.2.2:969", "203.0.113.3:23"), local(8, "/bus")}},
		{psinfo{pid: 6, ppid: 5, sid: 6}, []info{inet(3, "192.0.2.2:968", "203.0.113.3:23"), local(8, "/bus")}},
		{psinfo{pid: 7, ppid: 1, sid: 7}, []info{inet(3, "192.0.2.2:970", "203.0.113.3:23"), local(8, "/bus")}},
		{psinfo{pid: 9, ppid: 1, sid: 9}, []info{local(8, "/other")}},
	}}
	ps, gaps := tab.processes()
	held := map[host.Object][]int{}
	for _, p := range ps {
		for _, d := range p.Descriptors {
			held[d.Object] = append(held[d.Object], p.PID)
		}
	}
	var got []string
	for _, pids := range held {
		got = append(got, fmt.Sprint(pids))
	}
	slices.Sort(got)
	// The asked one, that of the bus and their child's; process 5's other one; those of 7; that of 9.
	if d := cmp.Diff([]string{"[5 6]", "[5 6]", "[5]", "[7]", "[7]", "[9]"}, got); d != "" {
		t.Errorf("holders (-want +got):\n%s", d)
	}
	var unsure []int
	for _, g := range gaps {
		if strings.HasPrefix(g.What, "holders of") {
			unsure = append(unsure, g.PID)
		}
	}
	if !slices.Equal(unsure, []int{5, 6, 7}) {
		t.Errorf("gaps: %+v", gaps)
	}
}

// Whose peer has several sockets with it is joined to none of them.
func TestSeveralPairs(t *testing.T) {
	pair := func(fd int, ino uint64, peer int) info {
		return info{fd: fd, mode: modeSocket, inode: ino, major: 1, flags: 2, peerPID: peer, name: name{family: familyUnix}, kind: socketStream}
	}
	tab := &tables{procs: []proc{{psinfo{pid: 5}, []info{pair(3, 1, 6), pair(4, 2, 6)}}, {psinfo{pid: 6}, []info{pair(3, 3, 5), pair(4, 4, 5)}}}}
	ps, gaps := tab.processes()
	for _, p := range ps {
		for _, d := range p.Descriptors {
			if d.Peer != "" || d.Object == "" {
				t.Errorf("process %d: %+v", p.PID, d)
			}
		}
	}
	if len(gaps) != 4 {
		t.Errorf("%+v", gaps)
	}
}

// A process that changes while it is read is not mixed with another.
func TestChanged(t *testing.T) {
	h := made(t)
	read, looks := h.read, 0
	h.read = func(p string) ([]byte, error) {
		if p == "/proc/8339/psinfo" {
			if looks++; looks > 1 {
				return read("/proc/8338/psinfo")
			}
		}
		return read(p)
	}
	if p, err := h.proc(t.Context(), 8339); !errors.Is(err, errChanged) || len(p.infos) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Who begins or ends while the host is looked at is in a report: what he had is read, or there is a gap. A connection that is handed on
// meanwhile is looked for again.
func TestDuringTheLook(t *testing.T) {
	telnet := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "8339" })
	}
	for _, tt := range []struct {
		name   string
		hidden []int // of which lists of processes telnet is not in
		gone   bool  // it cannot be read: it has ended
		owner  string
		gap    string
	}{
		{"it was there", nil, false, "held", ""},
		{"it began", []int{1}, false, "held", ""},
		{"it began after the look", []int{1, 2}, false, "held", ""},
		{"it ended", nil, true, "unread", "process: " + posix.WhyEnded},
		{"there is none", []int{1, 2, 3, 4, 5, 6, 7, 8}, true, "nobody", ""},
	} {
		open := func() *Host {
			h := made(t)
			list, read, looks := h.list, h.read, 0
			h.list = func(p string) ([]string, error) {
				names, err := list(p)
				if p == "/proc" {
					if looks++; slices.Contains(tt.hidden, looks) {
						return telnet(names), err
					}
				}
				return names, err
			}
			h.read = func(p string) ([]byte, error) {
				if tt.gone && strings.HasPrefix(p, "/proc/8339/") {
					return nil, host.ErrNotFound
				}
				return read(p)
			}
			return h
		}
		s, err := open().Find(t.Context(), flow("192.0.2.2:968", "203.0.113.3:23"))
		owner := "held"
		switch {
		case s.UID == posix.UnknownUID:
			owner = "unread"
		case s.Object == "":
			owner = "nobody"
		}
		if err != nil || owner != tt.owner {
			t.Errorf("%s: %s: %+v, %v", tt.name, owner, s, err)
		}
		snap, err := open().Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var gaps []string
		for _, g := range snap.Gaps() {
			gaps = append(gaps, fmt.Sprintf("%s: %s", g.What, g.Why))
		}
		if got := strings.Join(gaps, ", "); got != tt.gap {
			t.Errorf("%s: gaps %q, not %q", tt.name, got, tt.gap)
		}
	}
}

// Where processes begin without end the look ends, and the last are gaps.
func TestProcessesWithoutEnd(t *testing.T) {
	h := made(t)
	list, looks := h.list, 0
	h.list = func(p string) ([]string, error) {
		if names, err := list(p); p != "/proc" {
			return names, err
		}
		looks++
		return []string{"8339", fmt.Sprint(20000 + looks)}, nil
	}
	_, gaps, err := h.tables(t.Context())
	if want := (host.Gap{PID: 20000 + looks, What: posix.GapDescriptors, Why: posix.WhyBegan}); err != nil || !slices.Contains(gaps, want) {
		t.Errorf("%+v, %v", gaps, err)
	}
}

// A look that has no time left does not say that nobody holds a connection, and stops within a process with many descriptors.
func TestNoTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := made(t)
	read, files := h.read, 0
	h.read = func(p string) ([]byte, error) {
		if strings.Contains(p, "/fdinfo/") {
			files++
			cancel()
		}
		return read(p)
	}
	if s, err := h.Find(ctx, flow("192.0.2.2:967", "203.0.113.3:23")); !errors.Is(err, context.Canceled) || files != 1 {
		t.Errorf("%+v, %v, after %d descriptors", s, err, files)
	}
}

// Of two sockets with the same ends, in zones with network stacks of their own, none is chosen, and neither is joined to whatever has the
// other ends. Where holders are of several users, who made the connection counts if he is one of them.
func TestTwoStacksAndUsers(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.2:968"), netip.MustParseAddrPort("192.0.2.2:23")
	inet := func(inode uint64, local, remote netip.AddrPort) info {
		return info{mode: modeSocket, inode: inode, peerPID: -1, kind: socketStream, name: name{family: familyInet, inet: local}, peer: name{family: familyInet, inet: remote}}
	}
	of := func(pid int, uid uint32, is ...info) proc { return proc{psinfo{pid: pid, euid: uid}, is} }
	for _, tt := range []struct {
		name    string
		procs   []proc
		creator int
		want    error
		uid     uint32
		gaps    int
	}{
		{"one", []proc{of(5, 10, inet(1, a, b)), of(6, 10, inet(1, a, b)), of(7, 0, inet(0, b, a))}, 0, nil, 10, 0},
		{"two", []proc{of(5, 10, inet(1, a, b)), of(6, 10, inet(2, a, b)), of(7, 0, inet(0, b, a))}, 5, posix.ErrStacks, 0, 3},
		{"of two users", []proc{of(5, 10, inet(1, a, b)), of(6, 11, inet(1, a, b)), of(7, 0)}, 8, nil, posix.UnknownUID, 0},
		{"made by one of two", []proc{of(5, 10, inet(1, a, b)), of(6, 11, inet(1, a, b)), of(7, 0)}, 6, nil, 11, 0},
		{"made by another", []proc{of(5, 10, inet(1, a, b)), of(7, 0)}, 7, nil, 10, 0},
	} {
		tab := &tables{procs: tt.procs}
		tab.setConnections([]connection{{local: a, state: stateListen, creator: tt.creator}, {local: a, remote: b, state: 5, creator: tt.creator}})
		ps, gaps := tab.processes()
		s, err := tab.held(host.Flow{Protocol: host.TCP, Local: a, Remote: b})
		if !errors.Is(err, tt.want) || s.UID != tt.uid || len(gaps) != tt.gaps {
			t.Errorf("%s: %+v, %v, gaps %+v", tt.name, s, err, gaps)
		}
		for _, p := range ps {
			for _, d := range p.Descriptors {
				if d.Object == "" || tt.want != nil && (d.Peer != "" || p.PID != 7 && (d.Direction != host.UnknownDirection || d.State != "")) {
					t.Errorf("%s: process %d: %+v", tt.name, p.PID, d)
				}
			}
		}
	}
}

// Arguments that are cut are told as far as they go, with a gap.
func TestCut(t *testing.T) {
	h := made(t)
	read := h.read
	h.read = func(p string) ([]byte, error) {
		b, err := read(p)
		if path.Base(p) == "argv" {
			return upTo(3, bytes.NewReader(b))
		}
		return b, err
	}
	snap, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := snap.Process(t.Context(), 8339)
	want := []host.Gap{{PID: 8339, What: "arguments", Why: errCut.Error()}}
	if d := cmp.Diff(want, snap.Gaps()); err != nil || d != "" || !slices.Equal(p.Args, []string{"a", "-"}) {
		t.Errorf("%q, %v, gaps (-want +got):\n%s", p.Args, err, d)
	}
	if b, err := upTo(5, strings.NewReader("12345")); string(b) != "12345" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
