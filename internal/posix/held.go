package posix

import (
	"net/netip"

	"github.com/stopd/stopd/host"
)

// UnknownUID is the user of a socket of whom it is not known who it is: no system gives the number.
const UnknownUID = 1<<32 - 1

// IsOf reports whether a socket with two ends is that of a flow, as [host.Host] compares them.
func IsOf(f host.Flow, local, remote netip.AddrPort) bool {
	return remote == f.Remote && local.Port() == f.Local.Port() && (local.Addr() == f.Local.Addr().WithZone("") || f.Local.Addr().IsUnspecified())
}

// Held finds the socket of a flow that processes hold, with the users of its holders by pid. The socket's user is that of all holders, or
// [UnknownUID] where they differ. The error is [host.ErrNotFound], or [ErrStacks] where there are several.
func Held(ps []host.Process, f host.Flow) (found host.Socket, users map[int]uint32, err error) {
	users = map[int]uint32{}
	for _, p := range ps {
		for _, d := range p.Descriptors {
			switch {
			case d.Kind != f.Protocol || d.Object == "" || !IsOf(f, d.Local, d.Remote):
				continue
			case found.Object == "":
				found = host.Socket{Protocol: d.Kind, Local: d.Local, Remote: d.Remote, State: d.State, Direction: d.Direction, DirectionSource: d.DirectionSource,
					UID: *p.EUID, Inode: d.Inode, Object: d.Object}
			case d.Local != found.Local:
				continue // by another address of this host
			case d.Object != found.Object:
				return host.Socket{}, nil, ErrStacks
			}
			if users[p.PID] = *p.EUID; found.UID != *p.EUID {
				found.UID = UnknownUID
			}
		}
	}
	if found.Object == "" {
		return host.Socket{}, nil, host.ErrNotFound
	}
	return found, users, nil
}
