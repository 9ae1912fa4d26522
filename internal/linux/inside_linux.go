package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// An Inside is a TCP connection of another network namespace than the host's own.
type Inside struct {
	host.Flow        // its ends there
	Of        string // whose namespace it is: a process, or the path of the namespace's name
	// Outer has the ends with which it leaves the host's own namespace. It is zero where it does not.
	Outer host.Flow
	// Within is true where it does not leave the host.
	Within bool
	// Blind says why it cannot be told how it leaves.
	Blind error
}

// Inside lists the TCP connections of other network namespaces that have these ports, and the addresses that are valid. Namespaces that may not be
// opened are left out. It walks all sockets, so it is not for answering requests.
func (h *Host) Inside(ctx context.Context, local, remote netip.AddrPort) ([]Inside, error) {
	paths, err := listSpaces()
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	set, err := h.everywhere()
	if err != nil {
		return nil, err
	}
	defer set.close()
	is := func(want, have netip.AddrPort) bool {
		return want.Port() == have.Port() && (!want.Addr().IsValid() || want.Addr() == have.Addr())
	}
	var found []Inside
	for inode, n := range set.others {
		all, err := n.diag.dumpConnected(ctx)
		if errors.Is(err, unix.EPERM) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, c := range all {
			if is(local, c.local) && is(remote, c.remote) {
				found = append(found, set.inside(ctx, n, c, paths[inode]))
			}
		}
	}
	slices.SortFunc(found, func(a, b Inside) int { return strings.Compare(a.Of, b.Of) })
	return found, nil
}

// inside follows a connection of a namespace, which a path opens, to where it leaves the host.
func (s *spaceSet) inside(ctx context.Context, n *namespace, c inetSocket, path string) Inside {
	in := Inside{Flow: host.Flow{Protocol: host.TCP, Local: c.local, Remote: c.remote}, Of: path}
	if pid, ok := strings.CutSuffix(path, "/ns/net"); ok {
		in.Of = "process " + pid
		if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil {
			in.Of += " (" + strings.TrimSpace(string(name)) + ")"
		}
	}
	e, err := s.follow(ctx, n, conntrack.Tuple{Src: unzoned(c.local), Dst: unzoned(c.remote)})
	switch {
	case err != nil:
		in.Blind = err
	case e.found || e.inside:
		in.Within = true
	case e.blind != nil:
		in.Blind = e.blind
	case e.ns == s.home:
		in.Outer = host.Flow{Protocol: host.TCP, Local: e.Src, Remote: e.Dst}
	}
	return in
}
