package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A diag asks NETLINK_SOCK_DIAG (sock_diag(7)) of one network namespace.
type diag struct{ netlinks }

func newDiag(nsfd int) *diag {
	return &diag{netlinks{protocol: unix.NETLINK_SOCK_DIAG, nsfd: nsfd}}
}

// ask sends one request and returns the payloads of the answer. ErrNotFound says that there is none.
func (d *diag) ask(ctx context.Context, flags netlink.HeaderFlags, payload []byte) ([]netlink.Message, error) {
	ms, err := d.exchange(ctx, sockDiagByFamily, flags, payload)
	if errors.Is(err, unix.ENOENT) {
		return nil, host.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("ask sock_diag: %w", err)
	}
	return ms, nil
}

// find looks one flow up by an exact get. The kernel falls back to a listener, or to a socket bound to
// less than the whole flow, so both ends of the answer are compared.
func (d *diag) find(ctx context.Context, f host.Flow, ifindex uint32) (inetSocket, error) {
	f.Local, f.Remote = unzoned(f.Local), unzoned(f.Remote)
	family, proto := uint8(afInet6), uint8(protoTCP)
	if f.Local.Addr().Is4() {
		family = afInet
	}
	local, remote := f.Local, f.Remote
	switch f.Protocol {
	case host.TCP:
	case host.UDP:
		// udp_diag takes the ends as a datagram to us has them (net/ipv4/udp_diag.c).
		proto, local, remote = protoUDP, f.Remote, f.Local
	default:
		return inetSocket{}, fmt.Errorf("find %s socket: %w", f.Protocol, errors.ErrUnsupported)
	}
	ms, err := d.ask(ctx, 0, inetRequest(family, proto, 0xffffffff, local, remote, ifindex))
	if err != nil {
		return inetSocket{}, err
	}
	if len(ms) == 0 {
		return inetSocket{}, host.ErrNotFound
	}
	s, err := parseInet(f.Protocol, ms[0].Data)
	if err != nil {
		return inetSocket{}, err
	}
	if s.local != f.Local || s.remote != f.Remote || s.state == stateListen {
		return inetSocket{}, host.ErrNotFound
	}
	return s, nil
}

const loopbackLink = 1 // LOOPBACK_IFINDEX of net/flow.h

// findNear looks up the other end of a connection within the machine: it is bound to no link, or to
// loopback, which is where such a connection runs.
func (d *diag) findNear(ctx context.Context, f host.Flow) (inetSocket, error) {
	s, err := d.find(ctx, f, 0)
	if errors.Is(err, host.ErrNotFound) {
		return d.find(ctx, f, loopbackLink)
	}
	return s, err
}

func unzoned(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().WithZone("").Unmap(), ap.Port())
}

// settled finds a flow and tells its direction. Where something is in flight the counters must have been
// the same in two reads, because the kernel reads the queue and the counters one after the other.
func (d *diag) settled(ctx context.Context, f host.Flow, ifindex uint32) (inetSocket, host.Direction, error) {
	const tries = 5
	var last inetSocket
	for i := range tries {
		s, err := d.find(ctx, f, ifindex)
		if err != nil {
			return inetSocket{}, "", err
		}
		if !s.hasInfo {
			return s, host.UnknownDirection, nil
		}
		if s.info.unacked == 0 {
			return s, s.info.direction(0), nil
		}
		if i > 0 && s.info.settled(last.info) && s.wqueue == last.wqueue {
			return s, s.info.direction(uint64(s.wqueue) - uint64(s.info.notsent)), nil
		}
		if last = s; i > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return last, host.UnknownDirection, nil
}

// errNoDiag says that the kernel lacks the module that lists sockets of a kind. It answers the exact question
// for such a socket as if there were none.
var errNoDiag = errors.New("the kernel does not list them")

// check returns an error where the kernel does not tell about TCP connections at all.
func (d *diag) check(ctx context.Context) error {
	_, err := d.ask(ctx, netlink.Dump, inetRequest(afInet, protoTCP, 0, netip.AddrPort{}, netip.AddrPort{}, 0))
	if errors.Is(err, host.ErrNotFound) {
		return fmt.Errorf("list TCP sockets: %w", errNoDiag)
	}
	return err
}

// dump lists all internet sockets of a kind.
func (d *diag) dump(ctx context.Context, kind host.Kind) ([]inetSocket, error) {
	return d.dumpStates(ctx, kind, 0xffffffff)
}

// dumpConnected lists the TCP sockets that have a remote end and may have a holder.
func (d *diag) dumpConnected(ctx context.Context) ([]inetSocket, error) {
	return d.dumpStates(ctx, host.TCP, 0xffffffff&^(1<<stateListen|1<<stateClosed|1<<stateTimeWait))
}

func (d *diag) dumpStates(ctx context.Context, kind host.Kind, states uint32) ([]inetSocket, error) {
	proto := map[host.Kind]uint8{host.TCP: protoTCP, host.UDP: protoUDP, host.Raw: protoRaw}[kind]
	return d.dumpProtocol(ctx, kind, proto, states)
}

func (d *diag) dumpProtocol(ctx context.Context, kind host.Kind, proto uint8, states uint32) ([]inetSocket, error) {
	var all []inetSocket
	for _, family := range []uint8{afInet, afInet6} {
		ms, err := d.ask(ctx, netlink.Dump, inetRequest(family, proto, states, netip.AddrPort{}, netip.AddrPort{}, 0))
		if errors.Is(err, host.ErrNotFound) {
			err = fmt.Errorf("list %s sockets: %w", kind, errNoDiag)
		}
		if err != nil {
			return nil, err
		}
		all = slices.Grow(all, len(ms))
		for _, m := range ms {
			s, err := parseInet(kind, m.Data)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// dumpUnix lists all UNIX sockets.
func (d *diag) dumpUnix(ctx context.Context) ([]unixSocket, error) {
	ms, err := d.ask(ctx, netlink.Dump, unixRequest())
	if errors.Is(err, host.ErrNotFound) {
		err = fmt.Errorf("list UNIX sockets: %w", errNoDiag)
	}
	if err != nil {
		return nil, err
	}
	all := make([]unixSocket, 0, len(ms))
	for _, m := range ms {
		s, err := parseUnix(m.Data)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
