package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/conntrack"
)

// liteName is what UDP-Lite is called, which is UDP with ports of its own.
const liteName = "UDP-Lite"

// copied reads a socket of which the daemon has a copy.
func (s *snapshot) copied(ctx context.Context, d *host.Descriptor, fd int, r *reading) {
	what := label(d)
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if !r.note(what, err) {
		return
	}
	switch domain {
	case unix.AF_UNIX:
		d.Kind = host.Unix
	case unix.AF_INET, unix.AF_INET6:
		if err := inetSocketOf(fd, d); !r.note(what, err) {
			return
		}
	default:
		s.otherFamily(d, fd, domain, what, r)
		return
	}
	ns, err := s.namespaceOf(fd)
	switch {
	case err != nil:
		r.gap(what, "which network namespace it is in could not be read: "+err.Error())
	case d.Kind == host.Unix:
		s.unix(ctx, d, ns, r)
	case d.Kind.Inet():
		d.NetNS = ns.inode
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil && d.Kind == host.TCP && d.Remote.IsValid() {
			d.Opened, d.Since = s.opened(cookie)
		}
		if d.Kind == host.TCP && d.Direction == host.UnknownDirection {
			// An MPTCP socket does not tell what its subflow has in flight.
			if _, dir, err := ns.diag.settled(ctx, host.Flow{Protocol: d.Kind, Local: d.Local, Remote: d.Remote}, 0); err == nil {
				d.Direction, d.DirectionSource = told(d.Kind, dir)
			}
		}
		s.near(ctx, d, ns, r)
	}
}

// label names a socket in a gap. One that is mapped alone has no number.
func label(d *host.Descriptor) string {
	if len(d.FDs) == 0 {
		return string(d.Object)
	}
	return "descriptor " + strconv.Itoa(d.FDs[0])
}

// inetSocketOf reads addresses, state and direction of an internet socket.
func inetSocketOf(fd int, d *host.Descriptor) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("read protocol: %w", err)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("read type: %w", err)
	}
	switch {
	case typ == unix.SOCK_RAW:
		d.Kind = host.Raw
	case proto == protoTCP || proto == protoMPTCP:
		d.Kind = host.TCP
	case proto == protoUDP:
		d.Kind = host.UDP
	case proto == protoLite:
		d.Kind, d.Name = host.UDP, liteName
	default:
		d.Kind, d.Name = host.OtherSocket, "protocol "+strconv.Itoa(proto)
		return nil
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read local address: %w", err)
	}
	d.Local = addrPort(local)
	remote, err := unix.Getpeername(fd)
	if err == nil {
		d.Remote = addrPort(remote)
	} else if !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("read remote address: %w", err)
	}
	if d.Kind != host.TCP {
		if d.Remote.IsValid() {
			d.State = tcpStates[1]
			d.Direction, d.DirectionSource = told(d.Kind, "")
		}
		return nil
	}
	info, dir, err := settledInfo(fd, proto)
	if err != nil {
		return err
	}
	if d.State = stateName(host.TCP, info.state); d.Listening() || info.state == stateClosed {
		return nil
	}
	d.Direction, d.DirectionSource = told(host.TCP, dir)
	if proto == protoTCP {
		d.Bytes, d.Last = info.bytes(), info.last(time.Now().UTC())
	}
	return nil
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// settledInfo reads the counters of a TCP socket and tells its direction, like [diag.settled].
func settledInfo(fd, proto int) (tcpInfo, host.Direction, error) {
	var last tcpInfo
	lastQueue := -1
	for i := range 5 {
		b := make([]byte, 256)
		length := uint32(len(b))
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_TCP, unix.TCP_INFO,
			uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&length)), 0)
		if e != 0 {
			return tcpInfo{}, "", fmt.Errorf("read TCP_INFO: %w", e)
		}
		info, ok := parseTCPInfo(b[:length]) // x/sys would hide how much of it the kernel knows
		if !ok {
			return tcpInfo{}, "", fmt.Errorf("read TCP_INFO: the kernel is older than 4.19: %w", errSyntax)
		}
		if info.unacked == 0 || info.state == stateListen || info.state == stateClosed {
			return info, info.direction(0), nil
		}
		if proto == protoMPTCP {
			return info, host.UnknownDirection, nil // the counters are those of the subflow, the queue is not
		}
		queue, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return info, host.UnknownDirection, nil
		}
		if info.settled(last) && queue == lastQueue {
			return info, info.direction(uint64(queue) - uint64(info.notsent)), nil
		}
		if last, lastQueue = info, queue; i > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return last, host.UnknownDirection, nil
}

// near finds the other end of a connection within the host.
func (s *snapshot) near(ctx context.Context, d *host.Descriptor, ns *namespace, r *reading) {
	switch {
	case d.Kind == host.UDP || d.Kind == host.Raw:
		peers, err := ns.datagramPeers(ctx, d)
		if r.note("other end of "+label(d), err) && len(peers) == 1 {
			d.Peer = peers[0]
		}
	case d.Kind == host.TCP && d.Remote.IsValid() && !d.Listening():
		s.leads(ctx, d, ns, r)
	}
}

// leads finds where a connection leads: to a socket of this host, or out of it.
func (s *snapshot) leads(ctx context.Context, d *host.Descriptor, ns *namespace, r *reading) {
	e, err := s.follow(ctx, ns, conntrack.Tuple{Src: unzoned(d.Local), Dst: unzoned(d.Remote)})
	if err != nil {
		r.gap("other end of "+label(d), err.Error())
		return
	}
	switch {
	case e.found && e.socket.inode != 0:
		d.Peer = object{socketObject, 0, e.socket.inode}.name()
	case e.found || e.inside:
		d.Within = true
	case e.blind != nil:
		if ns != s.home {
			r.gap("other end of "+label(d), e.blind.Error())
		}
	case e.ns != s.home || e.Src != unzoned(d.Local) || e.Dst != unzoned(d.Remote) || ns != s.home:
		d.Outer = &host.Outer{Local: e.Src, Remote: e.Dst, NetNS: e.ns.inode}
	}
}

// unix reads what joins a UNIX socket to others.
func (s *snapshot) unix(ctx context.Context, d *host.Descriptor, ns *namespace, r *reading) {
	d.Kind = host.Unix
	table, err := ns.unixSockets(ctx)
	if !r.note("UNIX sockets", err) {
		return
	}
	u, ok := table.byInode[d.Inode]
	if !ok {
		r.gap(label(d), "the system does not list this UNIX socket")
		return
	}
	d.Type, d.Path = unixTypes[u.typ], u.path
	if u.state == stateListen {
		d.State = tcpStates[stateListen]
	}
	if u.peer != 0 {
		d.Peer = object{socketObject, 0, u.peer}.name()
		d.PeerPath = table.byInode[u.peer].path
	}
	d.Mode = table.mode(u)
}

// mode says which way data may still pass through a UNIX socket. A datagram socket without a name that
// nobody is connected to cannot be written to.
func (t *unixTable) mode(u unixSocket) host.Mode {
	noRead := u.noRead || u.typ == unix.SOCK_DGRAM && u.path == "" && u.peer != 0 && len(t.connected[u.inode]) == 0
	switch {
	case noRead && !u.noWrite:
		return host.Write
	case u.noWrite && !noRead:
		return host.Read
	}
	return host.ReadWrite
}

// namespaceOf tells which network namespace a socket is in. Anybody may see that it is the daemon's own, by
// its cookie (Linux 5.14); to ask in another (SIOCGSKNS, netdevice(7)) takes CAP_NET_ADMIN there.
func (s *snapshot) namespaceOf(fd int) (*namespace, error) {
	if c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil && c == s.h.cookie {
		return s.home, nil
	}
	nsfd, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(nsfd, &st); err != nil {
		unix.Close(nsfd)
		return nil, err
	}
	return s.add(st.Ino, nsfd), nil
}

// listed reads a socket that the daemon could not take a copy of, from the lists of its own namespace.
func (s *snapshot) listed(ctx context.Context, d *host.Descriptor, r *reading) {
	if u, err := s.home.unixSockets(ctx); err == nil {
		if _, ok := u.byInode[d.Inode]; ok {
			s.unix(ctx, d, s.home, r)
			return
		}
	}
	i, ok, err := s.home.inet(ctx, d.Inode)
	if !ok {
		why := "the daemon may not look at it, and the system does not list it in this network namespace"
		if err != nil {
			why += ": " + err.Error()
		}
		r.gap(label(d), why)
		return
	}
	d.Kind, d.Local, d.NetNS, d.State = i.kind, i.local, s.home.inode, stateName(i.kind, i.state)
	if i.remote.Port() != 0 {
		d.Remote = i.remote
	}
	if d.Kind != host.TCP && d.Remote.IsValid() {
		d.Direction, d.DirectionSource = told(d.Kind, "")
	} else if d.Kind == host.TCP && d.Remote.IsValid() {
		if f, err := s.h.find(ctx, host.Flow{Protocol: host.TCP, Local: d.Local, Remote: d.Remote}); err == nil {
			d.Direction, d.DirectionSource, d.Bytes = f.Direction, f.DirectionSource, f.Bytes
			d.Opened, d.Since = s.opened(f.Cookie)
		} else {
			d.Direction = host.UnknownDirection
		}
	}
	s.near(ctx, d, s.home, r)
}
