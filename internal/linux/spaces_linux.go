package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxSpaces bounds the network namespaces that one look asks.
const maxSpaces = 1024

// spacesAge is how old the list of network namespaces may be.
const spacesAge = time.Second

// spaces lists the network namespaces in which processes live or which have a name, each with a path by which
// it can be opened. It reads one link a process, at most once in spacesAge.
func (h *Host) spaces() (map[uint64]string, error) {
	h.spacesMu.Lock()
	defer h.spacesMu.Unlock()
	if time.Since(h.spacesRead) < spacesAge {
		return h.spacesSeen, nil
	}
	seen, err := listSpaces()
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	h.spacesSeen, h.spacesRead = seen, time.Now()
	return seen, nil
}

func listSpaces() (map[uint64]string, error) {
	root, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
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
			seen[inode] = "/proc/" + name
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

// A spaceSet is the network namespaces that one look meets: the daemon's own, and others that it has opened.
type spaceSet struct {
	h      *Host
	home   *namespace
	others map[uint64]*namespace
	listed bool
}

func (h *Host) newSpaces() *spaceSet {
	return &spaceSet{h: h, home: &namespace{inode: h.netns, diag: h.diag, conntrack: h.conntrack, rtnetlink: h.rtnetlink},
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
	n = &namespace{inode: inode, diag: newDiag(fd), conntrack: newConntrack(fd), rtnetlink: newRTNetlink(fd)}
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
func (s *spaceSet) all() (map[uint64]*namespace, error) {
	if s.listed {
		return s.others, nil
	}
	paths, err := s.h.spaces()
	if err != nil {
		return nil, err
	}
	for inode, path := range paths {
		if s.of(inode) != nil {
			continue
		}
		if len(s.others) >= maxSpaces {
			return nil, fmt.Errorf("bound: %d network namespaces", maxSpaces)
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
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
	s.listed = true
	return s.others, nil
}

// beyond returns the namespace that another one calls by a number; nil where none is known.
func (s *spaceSet) beyond(ctx context.Context, n *namespace, nsid int32) (*namespace, error) {
	if nsid == noNSID {
		return n, nil
	}
	if nsid < 0 {
		return nil, nil
	}
	if n.byNSID == nil {
		others, err := s.all()
		if err != nil {
			return nil, err
		}
		n.byNSID = map[int32]*namespace{}
		self, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(self)
		ask := func(o *namespace, fd int) error {
			id, err := n.rtnetlink.nsid(ctx, fd)
			if err == nil && id >= 0 {
				n.byNSID[id] = o
			}
			return err
		}
		errs := ask(s.home, self)
		for _, o := range others {
			errs = errors.Join(errs, ask(o, o.diag.nsfd))
		}
		if errs != nil {
			n.byNSID = nil
			return nil, errs
		}
	}
	return n.byNSID[nsid], nil
}
