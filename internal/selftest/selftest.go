// Package selftest makes on the running system what a report is about (sockets, pipes, a terminal, a process that has
// them) and checks that the system's own host sees each. It needs nothing but this program.
package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
)

// A channel joins this process and the child.
type channel int

const (
	datagrams channel = iota
	pipe
	pair
	terminal
	channels
)

// An arrangement is what was made: the ends of a connection, a child, and of each channel the descriptor here and there.
type arrangement struct {
	client, server netip.AddrPort
	clientFD       int
	child          int
	ours, theirs   [channels]int
	unmade         [channels]error

	held []io.Closer
	end  func()
}

// Start makes the command of a child that calls [Wait].
type Start func() *exec.Cmd

// A check is one thing that a host has to see.
type check struct {
	what string
	see  func(context.Context, *seen) error
}

var checks = []check{
	{"facts of the host", facts},
	{"a connection that this process opened", opened},
	{"a connection that was accepted, held by the child", accepted},
	{"the other end of a connection on this host", loopback},
	{"nobody's connection", absent},
	{"connected datagram sockets", joined(datagrams, host.UDP)},
	{"a pipe to the child", joined(pipe, host.Pipe)},
	{"a pair of UNIX sockets", joined(pair, host.Unix)},
	{"a pseudo terminal", joined(terminal, host.PTY)},
	{"the child", child},
	{"the ancestors of the child", ancestors},
}

// ErrFailed says that the host did not see all that was made.
var ErrFailed = errors.New("the host does not see all that it should")

// Run makes everything, has a child started by a command of this program that calls [Wait], and writes a line for each check.
// The error is [ErrFailed] where one went wrong; what and why is in its line.
func Run(ctx context.Context, h host.Host, start Start, w io.Writer) error {
	a, err := arrange(start, runtime.GOOS == "illumos" || runtime.GOOS == "solaris")
	if err != nil {
		return err
	}
	defer a.end()
	failed := false
	gaps := map[host.Gap]bool{}
	for _, c := range append(checks, check{"that the child has ended", gone}) {
		switch err := c.run(ctx, h, a, gaps); {
		case errors.Is(err, errors.ErrUnsupported):
			fmt.Fprintf(w, "%s: not tried: %v\n", c.what, err)
		case err != nil:
			failed = true
			fmt.Fprintf(w, "%s: NO: %v\n", c.what, err)
		default:
			fmt.Fprintf(w, "%s: yes\n", c.what)
		}
	}
	for _, g := range slices.SortedFunc(maps.Keys(gaps), func(a, b host.Gap) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.What, b.What), cmp.Compare(a.Why, b.Why))
	}) {
		fmt.Fprintf(w, "gap: process %d, %s: %s\n", g.PID, g.What, g.Why)
	}
	if failed {
		return ErrFailed
	}
	return nil
}

// run makes a check. While others hold what is ours it looks again: programs that look at other processes' sockets, as a daemon
// does, have copies of them for a moment.
func (c check) run(ctx context.Context, h host.Host, a *arrangement, gaps map[host.Gap]bool) error {
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		snap, err := h.Snapshot(ctx)
		if err != nil {
			return fmt.Errorf("look at the host: %w", err)
		}
		err = c.see(ctx, &seen{h: h, snap: snap, a: a})
		if errors.Is(err, errOthers) && time.Now().Before(until) {
			snap.Close()
			continue
		}
		for _, g := range snap.Gaps() {
			if g.PID == os.Getpid() || g.PID == a.child { // others' are nothing that this process made
				gaps[g] = true
			}
		}
		return errors.Join(err, snap.Close())
	}
}

// errOthers says that somebody else has what is ours.
var errOthers = errors.New("others hold it as well")

// seen is what the host shows of what was made.
type seen struct {
	h    host.Host
	snap host.Snapshot
	a    *arrangement
}

func facts(ctx context.Context, s *seen) error {
	f, _ := s.h.Facts(ctx)
	if f.OS == "" || f.Release == "" || f.BootTime.IsZero() || len(f.Addresses) == 0 {
		return fmt.Errorf("something is missing of %+v", f)
	}
	return nil
}

// find looks a flow up, and compares state, direction and holders. Where the system tells of an accepted connection by a hint alone, it
// does not tell the state, or who opened others.
func (s *seen) find(ctx context.Context, local, remote netip.AddrPort, want host.Direction, holder int) error {
	sock, err := s.h.Find(ctx, host.Flow{Protocol: host.TCP, Local: local, Remote: remote})
	if err != nil {
		return fmt.Errorf("find %s to %s: %w", local, remote, err)
	}
	far, err := s.h.Find(ctx, host.Flow{Protocol: host.TCP, Local: s.a.server, Remote: s.a.client})
	hints := err == nil && far.DirectionSource == host.FromListener
	if sock.State != "ESTABLISHED" && !(hints && sock.State == "") {
		return fmt.Errorf("its state is %q", sock.State)
	}
	if sock.Direction != want && !(hints && sock.Direction == host.UnknownDirection) {
		return fmt.Errorf("its direction is %q by %q, and not %q", sock.Direction, sock.DirectionSource, want)
	}
	return s.heldBy(ctx, sock.Object, holder)
}

// heldBy says why one process is not the only one to hold an object.
func (s *seen) heldBy(ctx context.Context, o host.Object, pid int) error {
	hs, err := s.snap.Holders(ctx, o)
	if err != nil {
		return err
	}
	var pids []int
	for _, h := range hs {
		pids = append(pids, h.PID)
	}
	if len(pids) > 1 && slices.Contains(pids, pid) {
		return fmt.Errorf("%q is held by processes %v: %w", o, pids, errOthers)
	}
	if !slices.Equal(pids, []int{pid}) {
		return fmt.Errorf("%q is held by processes %v, and not by %d alone", o, pids, pid)
	}
	return nil
}

func opened(ctx context.Context, s *seen) error {
	return s.find(ctx, s.a.client, s.a.server, host.Outbound, os.Getpid())
}

func accepted(ctx context.Context, s *seen) error {
	return s.find(ctx, s.a.server, s.a.client, host.Inbound, s.a.child)
}

func loopback(ctx context.Context, s *seen) error {
	near, err := s.h.Find(ctx, host.Flow{Protocol: host.TCP, Local: s.a.client, Remote: s.a.server})
	if err != nil {
		return err
	}
	far, err := s.h.Find(ctx, host.Flow{Protocol: host.TCP, Local: s.a.server, Remote: s.a.client})
	if err != nil {
		return err
	}
	if _, err := s.descriptor(ctx, os.Getpid(), s.a.clientFD, host.TCP); err != nil {
		return err
	}
	return s.peers(ctx, near.Object, far.Object)
}

// absent asks about a port that nobody has: the listener's own, as if it were connected.
func absent(ctx context.Context, s *seen) error {
	f := host.Flow{Protocol: host.TCP, Local: s.a.server, Remote: netip.AddrPortFrom(s.a.client.Addr(), s.a.server.Port())}
	if sock, err := s.h.Find(ctx, f); !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("%s to %s is found: %+v, %v", f.Local, f.Remote, sock, err)
	}
	return nil
}

// descriptor finds a descriptor of a process.
func (s *seen) descriptor(ctx context.Context, pid, fd int, kind host.Kind) (host.Descriptor, error) {
	p, err := s.snap.Process(ctx, pid)
	if err != nil {
		return host.Descriptor{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	i := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, fd) })
	if i < 0 {
		return host.Descriptor{}, fmt.Errorf("descriptor %d of process %d is not seen", fd, pid)
	}
	d := p.Descriptors[i]
	if d.Kind != kind || d.Object == "" {
		return d, fmt.Errorf("descriptor %d of process %d is %q, of object %q", fd, pid, d.Kind, d.Object)
	}
	return d, nil
}

func (s *seen) peers(ctx context.Context, near, far host.Object) error {
	for _, ends := range [][2]host.Object{{near, far}, {far, near}} {
		ps, err := s.snap.Peers(ctx, ends[0])
		if err != nil || !slices.Contains(ps, ends[1]) {
			return fmt.Errorf("the other end of %q is %q (%v), and not %q", ends[0], ps, err, ends[1])
		}
	}
	return nil
}

// joined checks that one end is this process's, the other the child's, and each the other's peer. Where both ends are one
// object both hold it.
func joined(c channel, kind host.Kind) func(context.Context, *seen) error {
	return func(ctx context.Context, s *seen) error {
		if err := s.a.unmade[c]; err != nil {
			return err
		}
		near, err := s.descriptor(ctx, os.Getpid(), s.a.ours[c], kind)
		if err != nil {
			return err
		}
		far, err := s.descriptor(ctx, s.a.child, s.a.theirs[c], kind)
		if err != nil {
			return err
		}
		if near.Object != far.Object {
			if err := errors.Join(s.heldBy(ctx, near.Object, os.Getpid()), s.heldBy(ctx, far.Object, s.a.child)); err != nil {
				return err
			}
		}
		return s.peers(ctx, near.Object, far.Object)
	}
}

func child(ctx context.Context, s *seen) error {
	p, err := s.snap.Process(ctx, s.a.child)
	if err != nil {
		return err
	}
	f, _ := s.h.Facts(ctx)
	switch {
	case p.PPID == nil || *p.PPID != os.Getpid():
		return fmt.Errorf("its parent is not process %d", os.Getpid())
	case p.EUID == nil || int(*p.EUID) != os.Geteuid() || p.RUID == nil || int(*p.RUID) != os.Getuid():
		return fmt.Errorf("its user is not %d", os.Geteuid())
	case p.StartTicks == 0 || p.Start.Before(f.BootTime):
		return fmt.Errorf("it started at %v, the host at %v", p.Start, f.BootTime)
	case p.Name == "":
		return errors.New("it has no name")
	}
	return nil
}

// ancestors follows parents up to the first process, or to where no more can be seen.
func ancestors(ctx context.Context, s *seen) error {
	seen := map[int]bool{}
	pid := s.a.child
	for pid > 1 {
		p, err := s.snap.Process(ctx, pid)
		if err != nil || p.PPID == nil || seen[pid] {
			return fmt.Errorf("the parent of process %d is not known (%v)", pid, err)
		}
		seen[pid] = true
		pid = *p.PPID
	}
	if !seen[os.Getpid()] && pid != os.Getpid() { // it may be the first
		return errors.New("this process is none of them")
	}
	return nil
}

// gone ends the child, and looks for it anew.
func gone(ctx context.Context, s *seen) error {
	s.a.end()
	snap, err := s.h.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Close()
	if p, err := snap.Process(ctx, s.a.child); !errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("%+v, %v", p, err)
	}
	return nil
}
