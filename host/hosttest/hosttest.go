// Package hosttest says what every [host.Host] must answer.
//
// A test makes an [Arrangement] of real processes, or takes one that was recorded, and [Run] asks the host
// about it. So that a system's own host and the replay of a recording of it answer alike, both pass the
// same list.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// An Arrangement is what a test made on a host, and what the host must therefore show.
type Arrangement struct {
	Processes   []Process
	Connections []Connection
	Channels    []Channel
	// Absent are flows that nobody has, among them those that a listener, or a datagram socket that is not
	// connected, has an end of.
	Absent []host.Flow
	// Ended is the pid of a process that is no more.
	Ended int
}

// A Process is what must be said of one process.
type Process struct {
	PID, PPID int
	Name, Exe string
	Args      []string
	CWD       string
	UID, GID  uint32
	Session   int
	PGRP      int
}

// A Connection is an internet connection, seen from the end that its holders have.
type Connection struct {
	Name      string
	Flow      host.Flow
	State     string
	Direction host.Direction
	UID       uint32
	Holders   []End
}

// An End is one descriptor.
type End struct {
	PID, FD int
	Mode    host.Mode
}

// A Side is what all holders of one end of a channel hold.
type Side struct {
	Holders []End
	// Path, PeerPath, Type and Side are as in [host.Descriptor].
	Path, PeerPath, Type, Side string
	// Peers is true where the other side is the peer of this one.
	Peers bool
}

// A Channel joins two sides. Where both ends are one object (a pipe) there is only the first, with all
// holders.
type Channel struct {
	Name  string
	Kind  host.Kind
	Sides []Side
}

// Run asks a host about an arrangement. The host must show nothing else that holds its sockets and pipes.
func Run(t *testing.T, h host.Host, a Arrangement) {
	t.Run("facts", func(t *testing.T) { facts(t, h) })
	t.Run("find", func(t *testing.T) { find(t, h, a) })
	for _, c := range a.Connections {
		t.Run("connection/"+c.Name, func(t *testing.T) { connection(t, h, c) })
	}
	for _, c := range a.Channels {
		t.Run("channel/"+c.Name, func(t *testing.T) { channel(t, h, c) })
	}
	for _, p := range a.Processes {
		t.Run("process/"+p.Name, func(t *testing.T) { process(t, h, p) })
	}
	t.Run("starts", func(t *testing.T) { starts(t, h, a.Processes) })
	t.Run("ended", func(t *testing.T) {
		if p, err := snapshot(t, h).Process(t.Context(), a.Ended); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("Process(%d) of a process that ended: %+v, %v; want ErrNotFound", a.Ended, p, err)
		}
	})
	t.Run("nobody", func(t *testing.T) { nobody(t, h) })
	t.Run("canceled", func(t *testing.T) { canceled(t, h, a) })
}

func snapshot(t *testing.T, h host.Host) host.Snapshot {
	t.Helper()
	s, err := h.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func facts(t *testing.T, h host.Host) {
	f, _ := h.Facts(t.Context())
	if f.Name == "" || f.BootTime.IsZero() || f.OS == "" || f.Release == "" || f.Arch == "" {
		t.Errorf("Facts lack something: %+v", f)
	}
	if !slices.IsSortedFunc(f.Addresses, netip.Addr.Compare) || len(f.Addresses) == 0 {
		t.Errorf("Facts have addresses %v, want some, ascending", f.Addresses)
	}
}

func find(t *testing.T, h host.Host, a Arrangement) {
	for _, f := range append(a.Absent, host.Flow{Protocol: host.TCP}) {
		if s, err := findAtLast(t, h, f); !errors.Is(err, host.ErrNotFound) || s != (host.Socket{}) {
			t.Errorf("Find(%+v) = %+v, %v; want ErrNotFound", f, s, err)
		}
	}
	for _, c := range a.Connections {
		for name, f := range map[string]host.Flow{
			"other remote port":   {Protocol: c.Flow.Protocol, Local: c.Flow.Local, Remote: otherPort(c.Flow.Remote)},
			"other local port":    {Protocol: c.Flow.Protocol, Local: otherPort(c.Flow.Local), Remote: c.Flow.Remote},
			"other local address": {Protocol: c.Flow.Protocol, Local: netip.AddrPortFrom(foreign(c.Flow.Local.Addr()), c.Flow.Local.Port()), Remote: c.Flow.Remote},
		} {
			if s, err := findAtLast(t, h, f); !errors.Is(err, host.ErrNotFound) {
				t.Errorf("Find(%s of %s) = %+v, %v; want ErrNotFound", name, c.Name, s, err)
			}
		}
	}
}

// findAtLast asks again where the answer is a bound: a host that is busy does not look everywhere for each question about
// what is not there.
func findAtLast(t *testing.T, h host.Host, f host.Flow) (host.Socket, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		s, err := h.Find(ctx, f)
		if err == nil || !strings.Contains(err.Error(), "bound: ") || ctx.Err() != nil {
			return s, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// otherPort returns an end on the discard port, where no arrangement listens; of an end on it, on that of chargen.
func otherPort(ap netip.AddrPort) netip.AddrPort {
	if ap.Port() == 9 {
		return netip.AddrPortFrom(ap.Addr(), 19)
	}
	return netip.AddrPortFrom(ap.Addr(), 9)
}

func foreign(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{203, 0, 113, 1})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
}

func connection(t *testing.T, h host.Host, c Connection) {
	want, err := h.Find(t.Context(), c.Flow)
	if err != nil {
		t.Fatalf("Find(%+v): %v", c.Flow, err)
	}
	if want.Flow() != c.Flow || want.State != c.State || want.Direction != c.Direction || want.UID != c.UID {
		t.Errorf("Find(%+v) = %+v; want state %s, direction %s, uid %d", c.Flow, want, c.State, c.Direction, c.UID)
	}
	if want.Direction != host.UnknownDirection && want.DirectionSource == "" {
		t.Error("Find does not say what told the direction")
	}
	if want.Object == "" {
		t.Errorf("Find(%+v) = %+v; want an object", c.Flow, want)
	}
	anywhere := c.Flow
	anywhere.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), c.Flow.Local.Port())
	if c.Flow.Local.Addr().Is6() {
		anywhere.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), c.Flow.Local.Port())
	}
	if got, err := h.Find(t.Context(), anywhere); err != nil || got != want {
		t.Errorf("Find(%+v) = %+v, %v; want %+v", anywhere, got, err, want)
	}
	s := snapshot(t, h)
	holders(t, h, s, want.Object, c.Holders, false)
	for _, e := range c.Holders {
		d := descriptor(t, s, e)
		got := host.Socket{Protocol: d.Kind, Local: d.Local, Remote: d.Remote, State: d.State, Direction: d.Direction,
			DirectionSource: d.DirectionSource, UID: want.UID, Inode: d.Inode, Object: d.Object, Cookie: want.Cookie, NetNS: d.NetNS, Bytes: d.Bytes}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("descriptor %d of process %d differs from what Find says (-find +descriptor):\n%s", e.FD, e.PID, diff)
		}
	}
}

// descriptor finds a descriptor among those of its process.
func descriptor(t *testing.T, s host.Snapshot, e End) host.Descriptor {
	t.Helper()
	p, err := s.Process(t.Context(), e.PID)
	if err != nil {
		t.Fatalf("Process(%d): %v", e.PID, err)
	}
	var found []host.Descriptor
	for _, d := range p.Descriptors {
		if slices.Contains(d.FDs, e.FD) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		t.Fatalf("process %d has %d descriptors with number %d, want 1: %+v", e.PID, len(found), e.FD, found)
	}
	return found[0]
}

// holders compares the holders of an object with those that there must be, and nobody else. A program that looks at other processes'
// sockets by pidfd_getfd(2), as a daemon or another package's tests may meanwhile, holds them for a moment: then it is looked again.
func holders(t *testing.T, h host.Host, s host.Snapshot, o host.Object, want []End, modes bool) {
	t.Helper()
	want = slices.Clone(want)
	if !modes {
		for i := range want {
			want[i].Mode = ""
		}
	}
	slices.SortFunc(want, compareEnds)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got, err := ends(t, s, o, modes)
		diff := cmp.Diff(want, got)
		if err == nil && diff == "" {
			return
		}
		others := slices.ContainsFunc(got, func(e End) bool { return !slices.ContainsFunc(want, func(w End) bool { return w.PID == e.PID }) })
		if !others || time.Now().After(deadline) {
			t.Errorf("Holders(%q): %v (-want +got):\n%s", o, err, diff)
			return
		}
		s = snapshot(t, h)
	}
}

func compareEnds(a, b End) int {
	if a.PID != b.PID {
		return a.PID - b.PID
	}
	return a.FD - b.FD
}

// ends returns the descriptors by which processes hold an object. The error says of which process they cannot be.
func ends(t *testing.T, s host.Snapshot, o host.Object, modes bool) (all []End, wrong error) {
	t.Helper()
	hs, err := s.Holders(t.Context(), o)
	if err != nil {
		t.Fatalf("Holders(%q): %v", o, err)
	}
	for _, h := range hs {
		p, err := s.Process(t.Context(), h.PID)
		if err != nil || p.ID() != h.ID {
			wrong = fmt.Errorf("holder %+v is process %+v, %v", h.ID, p.ID(), err)
		}
		for _, fd := range h.FDs {
			e := End{PID: h.PID, FD: fd}
			if modes {
				e.Mode = h.Mode
			}
			all = append(all, e)
		}
	}
	slices.SortFunc(all, compareEnds)
	return all, wrong
}

func channel(t *testing.T, h host.Host, c Channel) {
	s := snapshot(t, h)
	objects := make([]host.Object, len(c.Sides))
	for i, side := range c.Sides {
		for _, e := range side.Holders {
			d := descriptor(t, s, e)
			if d.Kind != c.Kind || d.Path != side.Path || d.PeerPath != side.PeerPath || d.Type != side.Type || d.Side != side.Side {
				t.Errorf("descriptor %d of process %d: %+v; want kind %s, %+v", e.FD, e.PID, d, c.Kind, side)
			}
			if d.Object == "" || objects[i] != "" && d.Object != objects[i] {
				t.Errorf("descriptor %d of process %d is of object %q, another of the same end of %q", e.FD, e.PID, d.Object, objects[i])
			}
			objects[i] = d.Object
		}
		holders(t, h, s, objects[i], side.Holders, true)
	}
	// Each side is asked first once: what was read before must not matter.
	for first := range c.Sides {
		s := snapshot(t, h)
		for n := range c.Sides {
			i := (first + n) % len(c.Sides)
			var want []host.Object
			if c.Sides[i].Peers {
				want = []host.Object{objects[len(objects)-1-i]}
			}
			got, err := s.Peers(t.Context(), objects[i])
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("Peers(%q) of side %d: %v (-want +got):\n%s", objects[i], i, err, diff)
			}
		}
	}
}

func process(t *testing.T, h host.Host, want Process) {
	s := snapshot(t, h)
	p, err := s.Process(t.Context(), want.PID)
	if err != nil {
		t.Fatal(err)
	}
	id := func(n *uint32) uint32 {
		if n == nil {
			t.Fatal("an id is unknown")
		}
		return *n
	}
	if p.PPID == nil || p.Session == nil || p.PGRP == nil {
		t.Fatalf("parent, session or process group is unknown: %+v", p)
	}
	got := Process{PID: p.PID, PPID: *p.PPID, Name: p.Name, Exe: p.Exe, Args: p.Args, CWD: p.CWD, UID: id(p.RUID), GID: id(p.RGID),
		Session: *p.Session, PGRP: *p.PGRP}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Process(%d) (-want +got):\n%s", want.PID, diff)
	}
	if id(p.EUID) != want.UID || id(p.SUID) != want.UID || id(p.EGID) != want.GID || id(p.SGID) != want.GID {
		t.Errorf("Process(%d) has other effective or saved ids than real ones: %+v", want.PID, p)
	}
	f, _ := h.Facts(t.Context())
	if p.Start.Before(f.BootTime) || p.StartTicks == 0 {
		t.Errorf("Process(%d) started at %v (%d); the host at %v", want.PID, p.Start, p.StartTicks, f.BootTime)
	}
	if p.AuditSession != nil {
		if pids, err := s.Audited(t.Context(), *p.AuditSession); err != nil || !slices.Contains(pids, p.PID) || !slices.IsSorted(pids) {
			t.Errorf("Audited(%d) = %v, %v; want %d among them", *p.AuditSession, pids, err, p.PID)
		}
	}
	again, err := s.Process(t.Context(), want.PID)
	if diff := cmp.Diff(p, again, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("Process(%d) asked twice: %v\n%s", want.PID, err, diff)
	}
}

// starts checks that identities differ and that no process is older than its parent.
func starts(t *testing.T, h host.Host, ps []Process) {
	s := snapshot(t, h)
	seen := map[host.ID]bool{}
	start := map[int]uint64{}
	for _, p := range ps {
		got, err := s.Process(t.Context(), p.PID)
		if err != nil {
			t.Fatal(err)
		}
		if seen[got.ID()] {
			t.Errorf("two processes are %+v", got.ID())
		}
		seen[got.ID()] = true
		start[p.PID] = got.StartTicks
	}
	for _, p := range ps {
		if parent, ok := start[p.PPID]; ok && start[p.PID] < parent {
			t.Errorf("process %d started at %d, its parent %d at %d", p.PID, start[p.PID], p.PPID, parent)
		}
	}
}

// nobody asks about an object that nobody holds.
func nobody(t *testing.T, h host.Host) {
	s := snapshot(t, h)
	if hs, err := s.Holders(t.Context(), "socket:[0]"); err != nil || len(hs) != 0 {
		t.Errorf("Holders of an object that is not there: %v, %v; want none", hs, err)
	}
	if ps, err := s.Peers(t.Context(), "socket:[0]"); err != nil || len(ps) != 0 {
		t.Errorf("Peers of an object that is not there: %v, %v; want none", ps, err)
	}
}

// canceled checks that a host whose caller gave up answers soon: what it did not read is a gap, or an error.
func canceled(t *testing.T, h host.Host, a Arrangement) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := snapshot(t, h)
	for _, c := range a.Connections {
		sock, err := h.Find(t.Context(), c.Flow)
		if err != nil {
			t.Fatal(err)
		}
		hs, err := s.Holders(ctx, sock.Object)
		found := 0
		for _, h := range hs {
			found += len(h.FDs)
		}
		if found != len(c.Holders) && err == nil && len(s.Gaps()) == 0 {
			t.Errorf("Holders(%q) with a canceled context: %v without an error or a gap", sock.Object, hs)
		}
	}
}
