package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// maxSteps bounds the network namespaces that one packet passes through.
const maxSteps = 8

// An end is where packets of a connection come to.
type end struct {
	// ns is the namespace that they end in, or by whose link they leave the host.
	ns *namespace
	conntrack.Tuple
	// found is true where socket is at the end; else inside says that they end in the host without one, as
	// for a connection that was just closed.
	found  bool
	socket inetSocket
	inside bool
	// tracked is true where every namespace that they were routed through knew of the connection.
	tracked bool
	// first is what the namespace that they came to tracks of their connection; nil where it tracks none.
	first *conntrack.Entry
	// blind says why connection tracking could not be asked everywhere; what leaves the host may then be
	// translated otherwise.
	blind error
}

// errAmbiguous says that several namespaces could be meant, and nothing tells which.
var errAmbiguous = errors.New("several network namespaces of this host have the address")

// follow goes with a packet of a TCP connection that comes to a namespace, or is sent there: it is translated
// as connection tracking says, and goes where the routes say, over veth links and bridges, until a socket is
// there or it leaves the host. Addresses alone tell nothing: two namespaces may have the same.
func (s *spaceSet) follow(ctx context.Context, n *namespace, p conntrack.Tuple) (end, error) {
	e := end{ns: n, Tuple: p, tracked: true}
	for step := range maxSteps {
		entry, ok, err := s.entry(ctx, e.ns, e.Tuple)
		if err != nil {
			e.blind = err
		}
		if ok {
			if step == 0 {
				e.first = &entry
			}
			e.Tuple, _ = entry.Translate(e.Tuple)
		}
		if e.socket, err = e.ns.diag.findNear(ctx, host.Flow{Protocol: host.TCP, Local: e.Dst, Remote: e.Src}); err == nil {
			e.found = true
			return e, nil
		} else if !errors.Is(err, host.ErrNotFound) {
			return end{}, err
		}
		if e.Dst.Addr().IsLoopback() {
			e.inside = true
			return e, nil
		}
		if e.Dst.Addr().IsLinkLocalUnicast() {
			return e, nil // on which link is not known
		}
		r, err := e.ns.routeTo(ctx, e.Dst.Addr())
		if err != nil {
			return end{}, err
		}
		if r.local || r.link == 0 {
			e.inside = true
			return e, nil
		}
		h := s.nextHop(ctx, e.ns, r)
		if h.err != nil {
			return end{}, h.err
		}
		next := h.ns
		// What only passes a bridge may be translated there as well (br_netfilter).
		for _, b := range h.bridges {
			if b == e.ns || b == next {
				continue
			}
			entry, ok, err := s.entry(ctx, b, e.Tuple)
			if err != nil {
				e.blind = err
			}
			if p, _ := entry.Translate(e.Tuple); ok && p != e.Tuple {
				e.Tuple, next = p, b
				break
			}
		}
		e.tracked = e.tracked && (ok || step == 0)
		if next == nil {
			return e, nil
		}
		e.ns = next
	}
	return end{}, fmt.Errorf("bound: %d network namespaces one after another", maxSteps)
}

// entry asks connection tracking about a packet. Where nothing is tracked it is not asked.
func (s *spaceSet) entry(ctx context.Context, n *namespace, p conntrack.Tuple) (conntrack.Entry, bool, error) {
	if !n.counted {
		n.counted = true
		n.entries, n.entriesErr = n.conntrack.entries(ctx)
		if errors.Is(n.entriesErr, errNoConntrack) {
			n.entries, n.entriesErr = 0, nil
		}
	}
	if n.entriesErr != nil || n.entries == 0 {
		return conntrack.Entry{}, false, n.entriesErr
	}
	t, ok, err := n.conntrack.find(ctx, p, 0)
	if err != nil || ok {
		return t, ok, err
	}
	zones, err := s.h.zones.of(ctx, n)
	if err != nil {
		return conntrack.Entry{}, false, err
	}
	// One packet may pass through several zones. What translates it counts, and two that do so differently are
	// one too many.
	var found []conntrack.Entry
	for _, z := range zones {
		t, ok, err := n.conntrack.find(ctx, p, z)
		if err != nil {
			return conntrack.Entry{}, false, err
		}
		if ok {
			found = append(found, t)
		}
	}
	return conntrack.Merged(found, p)
}

// nextHop returns where a route leads to.
func (s *spaceSet) nextHop(ctx context.Context, n *namespace, r route) hop {
	key := hopKey{r.link, r.next}
	if h, ok := n.hops[key]; ok {
		return h
	}
	w := &wire{set: s, seen: map[port]bool{}}
	var h hop
	if h.err = w.from(ctx, n, r.link); h.err == nil {
		h.err = w.shared(ctx, port{n, r.link}, "")
	}
	if h.err == nil {
		h.bridges = w.bridges
		h.ns, h.err = w.hop(ctx, n, r)
	}
	if n.hops == nil || len(n.hops) >= maxRoutes {
		n.hops = map[hopKey]hop{}
	}
	n.hops[key] = h
	return h
}

// hop returns which of those on the wire is the next hop; nil where none is.
func (w *wire) hop(ctx context.Context, n *namespace, r route) (*namespace, error) {
	members := slices.DeleteFunc(w.members, func(m *namespace) bool { return m == n })
	if w.pair && len(members) == 1 {
		// Nobody else is there, so it may answer for the next hop without having it, unless that is back here.
		to, err := members[0].routeTo(ctx, r.next)
		if err != nil || !to.local && (to.link == 0 || to.link == w.far.index) {
			return nil, err
		}
		return members[0], nil
	}
	var next *namespace
	for _, m := range members {
		to, err := m.routeTo(ctx, r.next)
		switch {
		case err != nil:
			return nil, err
		case !to.local:
		case next != nil:
			return nil, errAmbiguous
		default:
			next = m
		}
	}
	return next, nil
}

// A port is one link of a namespace.
type port struct {
	ns    *namespace
	index uint32
}

// A wire is the links that are joined to one another, and the namespaces that have them.
type wire struct {
	set     *spaceSet
	seen    map[port]bool
	members []*namespace
	bridges []*namespace // those with bridges
	pair    bool         // a veth alone: there are two ends and no more
	far     port         // its other end
}

// maxPorts bounds the links of a wire.
const maxPorts = 4096

// from finds what a packet that is sent by a link reaches.
func (w *wire) from(ctx context.Context, n *namespace, index uint32) error {
	if p := (port{n, index}); w.seen[p] {
		return nil
	} else if w.seen[p] = true; len(w.seen) > maxPorts {
		return fmt.Errorf("bound: %d links", maxPorts)
	}
	l, err := n.linkOf(ctx, index)
	if err != nil {
		return err
	}
	switch l.kind {
	case "veth":
		far, err := w.set.beyond(ctx, n, l.nsid)
		if err != nil || far == nil {
			return err
		}
		w.pair, w.far = len(w.seen) == 1, port{far, l.other}
		return w.into(ctx, far, l.other)
	case "bridge":
		return w.bridge(ctx, n, index)
	case "macvlan", "macvtap", "ipvlan":
		return w.upon(ctx, n, l)
	}
	return nil
}

// into is where a packet comes in by a link: to its namespace, or to the bridge that it is a port of.
func (w *wire) into(ctx context.Context, n *namespace, index uint32) error {
	w.member(n)
	if p := (port{n, index}); w.seen[p] {
		return nil
	} else {
		w.seen[p] = true
	}
	l, err := n.linkOf(ctx, index)
	if err != nil || l.master == 0 {
		return err
	}
	if w.seen[port{n, l.master}] {
		return nil
	}
	w.pair = false
	w.seen[port{n, l.master}] = true
	return w.bridge(ctx, n, l.master)
}

func (w *wire) bridge(ctx context.Context, n *namespace, index uint32) error {
	w.member(n)
	w.bridges = append(w.bridges, n)
	links, err := n.linksOf(ctx)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.master == index {
			if err := w.from(ctx, n, l.index); err != nil {
				return err
			}
		}
	}
	return nil
}

// upon is for links that share another, which may be in another namespace: those that share it reach each
// other, and what the other reaches.
func (w *wire) upon(ctx context.Context, n *namespace, l link) error {
	under, err := w.set.beyond(ctx, n, l.nsid)
	if err != nil || under == nil {
		return err
	}
	if err := w.shared(ctx, port{under, l.other}, l.kind); err != nil {
		return err
	}
	err = w.from(ctx, under, l.other)
	w.pair = false
	return err
}

// shared adds the namespaces that have links upon a given one, of a kind or of any.
func (w *wire) shared(ctx context.Context, p port, kind string) error {
	all, err := w.set.stacked(ctx)
	if err != nil {
		return err
	}
	for _, l := range all {
		if kind != "" && l.kind != kind || l.other != p.index {
			continue
		}
		if _, err := w.set.all(ctx); err != nil {
			return err
		}
		o := w.set.of(l.netns)
		if o == nil {
			continue // it is no more
		}
		if at, err := w.set.beyond(ctx, o, l.nsid); err != nil {
			return err
		} else if at == p.ns {
			w.member(o)
			w.pair = false
		}
	}
	return nil
}

// A stackedLink is a link upon another, and the namespace that has it.
type stackedLink struct {
	netns uint64
	link
}

// stacked returns the links upon others of all namespaces. What a link has upon it the kernel does not tell where that is in
// another namespace, and to list all links takes long where there are many containers: one list serves all who ask in a while.
func (s *spaceSet) stacked(ctx context.Context) ([]stackedLink, error) {
	all, err := s.h.stacked.since(ctx, s.since(), s.h.listStacked)
	if errors.Is(err, errSparing) {
		err = nil // the last list has to do
	}
	return all, err
}

func (h *Host) listStacked(ctx context.Context) ([]stackedLink, error) {
	s, err := h.everywhere()
	if err != nil {
		return nil, err
	}
	defer s.close()
	var all []stackedLink
	for _, n := range append(slices.Collect(maps.Values(s.others)), s.home) {
		links, err := n.linksOf(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if l.kind == "macvlan" || l.kind == "macvtap" || l.kind == "ipvlan" {
				all = append(all, stackedLink{n.inode, l})
			}
		}
	}
	return all, nil
}

func (w *wire) member(n *namespace) {
	if !slices.Contains(w.members, n) {
		w.members = append(w.members, n)
	}
}
