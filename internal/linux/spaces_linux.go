package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxSpaces bounds the network namespaces that one look asks.
const maxSpaces = 1024

// spacesAge is how old the list of network namespaces may be where all that is looked for is in it.
const spacesAge = time.Second

// spaces lists the network namespaces in which processes live or which have a name, each with a path by which
// it can be opened, as they are after a time. It reads one link a process.
func (h *Host) spaces(ctx context.Context, since time.Time) (map[uint64]string, error) {
	seen, err := h.seen.since(ctx, since, func(context.Context) (map[uint64]string, error) { return listSpaces() })
	if err != nil {
		return seen, fmt.Errorf("list network namespaces: %w", err)
	}
	return seen, nil
}

func listSpaces() (map[uint64]string, error) {
	root, err := openProcFS()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	pids, err := listPIDs(root)
	if err != nil {
		return nil, err
	}
	seen := map[uint64]string{}
	buf := make([]byte, 64)
	for _, pid := range pids {
		name := strconv.Itoa(pid) + "/ns/net"
		n, err := unix.Readlinkat(root, name, buf)
		if err != nil {
			continue // ended, or somebody else's
		}
		if inode, ok := parseNamespace(buf[:n]); ok && seen[inode] == "" {
			seen[inode] = name
		}
	}
	// Those that have a name need no process (ip-netns(8)).
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if inode, path, ok := parseNamespaceMount(lines.Bytes()); ok && seen[inode] == "" {
			seen[inode] = path
		}
	}
	return seen, nil
}

// since says from when what others have read of all namespaces has to be.
func (s *spaceSet) since() time.Time {
	if s.renewed.IsZero() {
		return s.begun.Add(-spacesAge)
	}
	return s.renewed
}

// A spaceSet is the network namespaces that one look meets: the daemon's own, and others that it has opened.
type spaceSet struct {
	h       *Host
	begun   time.Time
	home    *namespace
	others  map[uint64]*namespace
	listed  bool
	renewed time.Time // zero until then
}

func (h *Host) newSpaces() *spaceSet {
	return &spaceSet{h: h, begun: time.Now(), home: &namespace{inode: h.netns, diag: h.diag, conntrack: h.conntrack, rtnetlink: h.rtnetlink},
		others: map[uint64]*namespace{}}
}

func (s *spaceSet) close() {
	for _, n := range s.others {
		n.close()
	}
	s.others = nil
}

// add takes over the descriptor of a namespace.
func (s *spaceSet) add(inode uint64, fd int) *namespace {
	n := s.of(inode)
	if n != nil {
		unix.Close(fd)
		return n
	}
	n = &namespace{inode: inode, diag: newDiag(fd), conntrack: newConntracker(fd), rtnetlink: newRTNetlink(fd)}
	s.others[inode] = n
	return n
}

// of returns a namespace that was met; nil for others.
func (s *spaceSet) of(inode uint64) *namespace {
	if inode == s.home.inode {
		return s.home
	}
	return s.others[inode]
}

// all opens every namespace there is and returns those beside the daemon's own. Those that may not be opened
// are left out: whose they are is not told without privilege.
func (s *spaceSet) all(ctx context.Context) (map[uint64]*namespace, error) {
	if s.listed {
		return s.others, nil
	}
	// An older list will do: what is missing there is looked for again.
	if err := s.open(ctx, s.begun.Add(-spacesAge)); err != nil && !errors.Is(err, errSparing) {
		return nil, err
	}
	s.listed = true
	return s.others, nil
}

// renew is for where something is missing: it opens those that were made since others asked, once a look.
func (s *spaceSet) renew(ctx context.Context) error {
	if !s.renewed.IsZero() {
		return nil
	}
	err := s.open(ctx, s.begun)
	s.listed, s.renewed = true, time.Now()
	if err != nil {
		return err
	}
	for _, n := range append(slices.Collect(maps.Values(s.others)), s.home) {
		n.byNSID, n.hops, n.routes, n.links, n.allLinks = nil, nil, nil, nil, false
	}
	return nil
}

// open opens all namespaces that there are after a time.
func (s *spaceSet) open(ctx context.Context, since time.Time) error {
	paths, err := s.h.spaces(ctx, since)
	return errors.Join(s.openPaths(paths), err)
}

// openPaths opens namespaces by the paths of files that are theirs: those of processes are below the directory of all processes.
func (s *spaceSet) openPaths(paths map[uint64]string) error {
	root, err := openProcFS()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for inode, path := range paths {
		if s.of(inode) != nil {
			continue
		}
		if len(s.others) >= maxSpaces {
			return fmt.Errorf("bound: %d network namespaces", maxSpaces)
		}
		fd, err := unix.Openat(root, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Ino != inode {
			unix.Close(fd) // the process has ended, or moved
			continue
		}
		s.add(inode, fd)
	}
	return nil
}

// everywhere is all namespaces that there are now, for what is read of all of them at once.
func (h *Host) everywhere() (*spaceSet, error) {
	paths, err := listSpaces()
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	s := h.newSpaces()
	s.listed, s.renewed = true, s.begun
	if err := s.openPaths(paths); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// beyond returns the namespace that another one calls by a number; nil where none is known.
func (s *spaceSet) beyond(ctx context.Context, n *namespace, nsid int32) (*namespace, error) {
	if nsid == noNSID {
		return n, nil
	}
	if nsid < 0 {
		return nil, nil
	}
	if err := s.number(ctx, n); err != nil {
		return nil, err
	}
	if o := n.byNSID[nsid]; o != nil || !s.renewed.IsZero() {
		return o, nil
	}
	// It may be newer than the list.
	if err := s.renew(ctx); err != nil {
		return nil, err
	}
	err := s.number(ctx, n)
	return n.byNSID[nsid], err
}

// number asks a namespace which number it gives to each other.
func (s *spaceSet) number(ctx context.Context, n *namespace) error {
	if n.byNSID != nil {
		return nil
	}
	others, err := s.all(ctx)
	if err != nil {
		return err
	}
	self, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	numbers := map[int32]*namespace{}
	ask := func(o *namespace, fd int) error {
		id, err := n.rtnetlink.nsid(ctx, fd)
		if err == nil && id >= 0 {
			numbers[id] = o
		}
		return err
	}
	errs := ask(s.home, self)
	for _, o := range others {
		errs = errors.Join(errs, ask(o, o.diag.nsfd))
	}
	if errs == nil {
		n.byNSID = numbers
	}
	return errs
}
