package linux

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// find returns the socket that packets of a flow come to. Its NAT says how they are translated on the way.
func (s *spaceSet) find(ctx context.Context, f host.Flow) (host.Socket, error) {
	f.Local, f.Remote = unzoned(f.Local), unzoned(f.Remote)
	if !f.Local.IsValid() || !f.Remote.IsValid() || f.Local.Addr().Is4() != f.Remote.Addr().Is4() {
		return host.Socket{}, host.ErrNotFound
	}
	e, err := s.follow(ctx, s.home, packetOf(f))
	if err == nil && e.forwarded(f) && s.renewed.IsZero() {
		// It may be a container that is newer than the lists.
		if err = s.renew(ctx); err == nil {
			e, err = s.follow(ctx, s.home, packetOf(f))
		}
	}
	if err != nil {
		return host.Socket{}, err
	}
	switch {
	case !e.found && e.blind != nil && !errors.Is(e.blind, unix.EPERM):
		return host.Socket{}, e.blind
	case e.forwarded(f):
		return host.Socket{}, s.h.seenPassing(f, e)
	case !e.found && !seesOthers():
		return host.Socket{}, host.ErrNotFound
	case !e.found:
		return host.Socket{}, s.passedBefore(ctx, f, e)
	}
	return s.settled(ctx, e.ns, host.Flow{Protocol: host.TCP, Local: e.Dst, Remote: e.Src}, f)
}

// settled returns a socket of a namespace, which others know by the ends of another flow.
func (s *spaceSet) settled(ctx context.Context, n *namespace, inner, outer host.Flow) (host.Socket, error) {
	found, dir, err := n.diag.settled(ctx, inner, 0)
	if errors.Is(err, host.ErrNotFound) {
		found, dir, err = n.diag.settled(ctx, inner, loopbackLink)
	}
	if err != nil {
		return host.Socket{}, err
	}
	out := socketOf(found, dir, n.inode)
	if inner.Local != outer.Local || inner.Remote != outer.Remote {
		out.NAT = host.NAT{Original: host.Ends{Local: inner.Local, Remote: inner.Remote},
			Translated: host.Ends{Local: outer.Local, Remote: outer.Remote}}
	}
	return out, nil
}

// findHidden looks for a flow, of which neither sockets nor connection tracking of the host's own namespace tell,
// among the connections of other namespaces with the same remote end. One that leaves the host from this port,
// as far as is known untranslated, is it. Others are what something may hide that translates addresses and
// does not tell, such as a BPF program: they are named, and none is chosen.
func (h *Host) findHidden(ctx context.Context, set *spaceSet, f host.Flow) (host.Socket, error) {
	// Where no other namespaces may be opened there is nothing to wait for.
	if others, err := set.all(ctx); err != nil {
		return host.Socket{}, err
	} else if len(others) == 0 {
		return host.Socket{}, host.ErrNotFound
	}
	all, err := h.elsewhere.since(ctx, set.since(), h.listElsewhere)
	if err != nil {
		return host.Socket{}, err
	}
	seen := all[unzoned(f.Remote)]
	addrs, _, err := h.addresses()
	if err != nil {
		return host.Socket{}, err
	}
	var found []host.Socket
	hidden := &host.HiddenError{}
	for _, c := range seen {
		n := set.of(c.NetNS)
		if n == nil {
			continue // it is no more
		}
		e, err := set.follow(ctx, n, conntrack.Tuple{Src: c.Local, Dst: c.Remote})
		translated := err == nil && (e.Src != c.Local || e.Dst != c.Remote)
		switch {
		case err == nil && (e.found || e.inside):
			continue // it does not leave the host
		case err == nil && e.blind == nil && translated && slices.Contains(addrs, e.Src.Addr()) && e.Src.Port() != f.Local.Port():
			continue // it is another connection, and known
		case err == nil && e.blind == nil && e.tracked && e.Src.Port() == f.Local.Port() && e.Dst == f.Remote &&
			(!translated || slices.Contains(addrs, e.Src.Addr())):
			s, err := set.settled(ctx, n, c.Flow(), host.Flow{Protocol: host.TCP, Local: e.Src, Remote: e.Dst})
			if err == nil {
				found = append(found, s)
				continue
			}
			if errors.Is(err, host.ErrNotFound) {
				continue
			}
		}
		hidden.Seen = append(hidden.Seen, c)
	}
	switch {
	case len(found) == 1 && len(hidden.Seen) == 0:
		return found[0], nil
	case len(found)+len(hidden.Seen) == 0:
		return host.Socket{}, host.ErrNotFound
	}
	hidden.Seen = append(hidden.Seen, found...)
	return host.Socket{}, hidden
}

// An elsewhere is the connections of other namespaces than the daemon's, by their remote ends.
type elsewhere map[netip.AddrPort][]host.Socket

// Bounds of an elsewhere: how many connections it has, and of one remote end.
const (
	maxElsewhere = 1 << 16
	maxSame      = 16
)

func (h *Host) listElsewhere(ctx context.Context) (elsewhere, error) {
	set, err := h.everywhere()
	if err != nil {
		return nil, err
	}
	defer set.close()
	by := elsewhere{}
	count := 0
	for _, n := range set.others {
		all, err := n.diag.dumpConnected(ctx)
		if err != nil {
			if errors.Is(err, unix.EPERM) {
				continue // whose they are is not told without privilege
			}
			return nil, err
		}
		for _, s := range all {
			if s.inode == 0 || s.remote.Port() == 0 || s.remote.Addr().IsLoopback() || count >= maxElsewhere || len(by[s.remote]) >= maxSame {
				continue
			}
			count++
			by[s.remote] = append(by[s.remote], socketOf(s, host.UnknownDirection, n.inode))
		}
	}
	for _, ss := range by {
		slices.SortFunc(ss, func(a, b host.Socket) int {
			return cmp.Or(cmp.Compare(a.NetNS, b.NetNS), a.Local.Compare(b.Local))
		})
	}
	return by, nil
}
