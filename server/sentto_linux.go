package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// originalDestination is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h).
const originalDestination = 80

// sentTo is the address that a connection was made to, as connection tracking has it: where rules redirect to this host what was
// meant for another, that other's. Not valid is that nothing is tracked of it in the default zone, so that no rule has redirected it.
func sentTo(nc net.Conn) (to netip.Addr, err error) {
	c, ok := nc.(syscall.Conn)
	local, ok2 := endOf(nc.LocalAddr())
	if !ok || !ok2 {
		return to, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return to, fmt.Errorf("ask where a connection was sent to: %w", err)
	}
	var option error
	// Of its structures golang.org/x/sys has none for these options; two are as long as what comes, struct sockaddr_in and sockaddr_in6.
	err = raw.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			v4, e := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDestination)
			if option = e; e == nil {
				to = netip.AddrFrom4([4]byte(v4.Multiaddr[4:8]))
			}
			return
		}
		v6, e := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, originalDestination)
		if option = e; e == nil {
			to = netip.AddrFrom16(v6.Addr.Addr).Unmap()
		}
	})
	// ENOPROTOOPT: there is no connection tracking. ENOENT: it has nothing of this connection (net/netfilter/nf_conntrack_proto.c, getorigdst).
	if errors.Is(option, unix.ENOPROTOOPT) || errors.Is(option, unix.ENOENT) {
		option = nil
	}
	if err = errors.Join(err, option); err != nil {
		return netip.Addr{}, fmt.Errorf("ask where a connection was sent to: %w", err)
	}
	return to, nil
}
