package linux

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A namespace is a network namespace as one snapshot sees it. Lists are read when first needed, once.
type namespace struct {
	inode uint64
	diag  *diag

	unixes    *unixTable
	unixErr   error
	datagrams []inetSocket
	dataErr   error
	dataRead  bool
	all       map[uint64]inetSocket
	allErr    error
}

// close frees what a namespace other than the daemon's own holds.
func (n *namespace) close() {
	n.diag.close()
	unix.Close(n.diag.nsfd)
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
	if !n.dataRead {
		n.dataRead = true
		n.datagrams, n.dataErr = n.diag.dump(ctx, host.UDP)
	}
	if n.dataErr != nil || d.Kind != host.UDP {
		return nil, n.dataErr
	}
	var peers []host.Object
	for _, inode := range peersOf(d.Local, d.Remote, n.datagrams) {
		if o := (object{socketObject, 0, inode}).name(); o != d.Object && !slices.Contains(peers, o) {
			peers = append(peers, o)
		}
	}
	return peers, nil
}
