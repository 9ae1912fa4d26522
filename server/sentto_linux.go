package server

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// originalDestination is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h).
const originalDestination = 80

// sentTo is the address that a connection was made to, as connection tracking has it: where rules redirect to this host what was
// meant for another, that other's. Not valid is not known.
func sentTo(nc net.Conn) (to netip.Addr) {
	c, ok := nc.(syscall.Conn)
	if !ok {
		return to
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return to
	}
	// Of its structures golang.org/x/sys has none for these options; two are as long as what comes, struct sockaddr_in and sockaddr_in6.
	raw.Control(func(fd uintptr) {
		if v4, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDestination); err == nil {
			to = netip.AddrFrom4([4]byte(v4.Multiaddr[4:8]))
		} else if v6, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, originalDestination); err == nil {
			to = netip.AddrFrom16(v6.Addr.Addr).Unmap()
		}
	})
	return to
}
