package posix

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
)

// ErrStacks says that the system does not tell which of several sockets it is.
var ErrStacks = errors.New("several sockets have these ends, in network stacks of their own")

// Pairs finds the other end of a connection within the host by its addresses. The zero Pairs is empty.
type Pairs struct{ sockets map[ends][]host.Object }

type ends struct {
	kind          host.Kind
	local, remote netip.AddrPort
}

// Add adds the socket of a descriptor; one that is connected to nobody has no other end.
func (p *Pairs) Add(d host.Descriptor) {
	if p.sockets == nil {
		p.sockets = map[ends][]host.Object{}
	}
	e := ends{d.Kind, d.Local, d.Remote}
	if d.Object == "" || !d.Remote.IsValid() || len(p.sockets[e]) == 2 || slices.Contains(p.sockets[e], d.Object) { // two are too many
		return
	}
	p.sockets[e] = append(p.sockets[e], d.Object)
}

// Peer returns the socket at the other end of a descriptor's; empty where this host has none. Where several sockets have one of
// the ends, in network stacks of their own (zones, jails), the error is [ErrStacks].
func (p *Pairs) Peer(d host.Descriptor) (host.Object, error) {
	switch far := p.sockets[ends{d.Kind, d.Remote, d.Local}]; {
	case len(far) == 0:
		return "", nil
	case len(far) > 1 || p.One(d) != nil:
		return "", ErrStacks
	default:
		return far[0], nil
	}
}

// One says why a descriptor's ends do not tell its socket from others: [ErrStacks] or nil.
func (p *Pairs) One(d host.Descriptor) error {
	if len(p.sockets[ends{d.Kind, d.Local, d.Remote}]) > 1 {
		return ErrStacks
	}
	return nil
}
