package linux

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A namespace is a network namespace as one snapshot sees it. Lists are read when first needed, once.
type namespace struct {
	inode     uint64
	diag      *diag
	conntrack *conntracker
	rtnetlink *rtnetlink

	byNSID     map[int32]*namespace // whom it calls by which number
	routes     map[netip.Addr]route
	hops       map[hopKey]hop
	links      map[uint32]link
	allLinks   bool
	counted    bool
	entries    uint32 // connections that are tracked
	entriesErr error

	unixes    *unixTable
	unixErr   error
	datagrams map[uint8]datagrams // by protocol
	all       map[uint64]inetSocket
	allErr    error
}

// datagrams are the datagram sockets of one protocol.
type datagrams struct {
	all []inetSocket
	err error
}

// close frees what a namespace other than the daemon's own holds.
func (n *namespace) close() {
	n.conntrack.close()
	n.rtnetlink.close()
	n.diag.close()
	unix.Close(n.diag.nsfd)
}

// A hopKey is a way out of a namespace: a link and the next hop.
type hopKey struct {
	link uint32
	next netip.Addr
}

// A hop is where a way out leads to.
type hop struct {
	ns      *namespace   // nil where it leaves the host
	bridges []*namespace // whose bridges it passes
	err     error
}

// maxRoutes bounds the routes that are remembered.
const maxRoutes = 1 << 16

// routeTo returns where packets for an address go.
func (n *namespace) routeTo(ctx context.Context, to netip.Addr) (route, error) {
	if r, ok := n.routes[to]; ok {
		return r, nil
	}
	r, err := n.rtnetlink.route(ctx, to)
	if err != nil {
		return route{}, err
	}
	if n.routes == nil || len(n.routes) >= maxRoutes {
		n.routes = map[netip.Addr]route{}
	}
	n.routes[to] = r
	return r, nil
}

// linkOf returns a link.
func (n *namespace) linkOf(ctx context.Context, index uint32) (link, error) {
	if l, ok := n.links[index]; ok {
		return l, nil
	}
	l, err := n.rtnetlink.link(ctx, index)
	if err != nil {
		return link{}, err
	}
	if n.links == nil {
		n.links = map[uint32]link{}
	}
	n.links[index] = l
	return l, nil
}

// linksOf returns all links.
func (n *namespace) linksOf(ctx context.Context) (map[uint32]link, error) {
	if n.allLinks {
		return n.links, nil
	}
	all, err := n.rtnetlink.links(ctx)
	if err != nil {
		return nil, err
	}
	n.allLinks, n.links = true, map[uint32]link{}
	for _, l := range all {
		n.links[l.index] = l
	}
	return n.links, nil
}

// A unixTable is all UNIX sockets of a namespace, and who is connected to each.
type unixTable struct {
	byInode   map[uint64]unixSocket
	connected map[uint64][]uint64
}

// unixSockets lists the UNIX sockets: the kernel has no other way to look one up than to walk them all.
func (n *namespace) unixSockets(ctx context.Context) (*unixTable, error) {
	if n.unixes != nil || n.unixErr != nil {
		return n.unixes, n.unixErr
	}
	all, err := n.diag.dumpUnix(ctx)
	if err != nil {
		n.unixErr = err
		return nil, err
	}
	n.unixes = &unixTable{byInode: make(map[uint64]unixSocket, len(all)), connected: map[uint64][]uint64{}}
	for _, u := range all {
		n.unixes.byInode[u.inode] = u
		if u.peer != 0 {
			n.unixes.connected[u.peer] = append(n.unixes.connected[u.peer], u.inode)
		}
	}
	return n.unixes, nil
}

// inet looks a socket up by its inode among all of the namespace.
func (n *namespace) inet(ctx context.Context, inode uint64) (inetSocket, bool, error) {
	if n.all == nil && n.allErr == nil {
		n.all = map[uint64]inetSocket{}
		for _, kind := range []host.Kind{host.TCP, host.UDP, host.Raw} {
			all, err := n.diag.dump(ctx, kind)
			if err != nil {
				// Others may still be listed. Many kernels do not list raw sockets.
				n.allErr = errors.Join(n.allErr, err)
			}
			for _, s := range all {
				n.all[s.inode] = s
			}
		}
	}
	s, ok := n.all[inode]
	return s, ok, n.allErr
}

// datagramPeers finds the sockets of the namespace that exchange datagrams with one: those connected to
// its address, and that which its own remote address belongs to. Between two sockets that both only name
// addresses as they send, the kernel keeps nothing.
func (n *namespace) datagramPeers(ctx context.Context, d *host.Descriptor) ([]host.Object, error) {
	if d.Kind != host.UDP {
		return nil, nil
	}
	proto := uint8(protoUDP)
	if d.Name == liteName {
		proto = protoLite
	}
	known, ok := n.datagrams[proto]
	if !ok {
		known.all, known.err = n.diag.dumpProtocol(ctx, host.UDP, proto, 0xffffffff)
		if n.datagrams == nil {
			n.datagrams = map[uint8]datagrams{}
		}
		n.datagrams[proto] = known
	}
	if known.err != nil {
		return nil, known.err
	}
	var peers []host.Object
	for _, inode := range peersOf(d.Local, d.Remote, known.all) {
		// One that is connected to its own address is its own other end.
		if o := (object{socketObject, 0, inode}).name(); (o != d.Object || d.Remote == d.Local) && !slices.Contains(peers, o) {
			peers = append(peers, o)
		}
	}
	return peers, nil
}
