package netlab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// FreePort returns a port of an address at which nobody listens, and that no connection gets by itself
// (ip_local_port_range, ip(7)). Until free is called no other caller gets it, in whichever process of the machine: that is kept by
// a socket of UDP with its number.
func FreePort(a netip.Addr) (at netip.AddrPort, free func(), err error) {
	const first, last, tries = 20000, 32000, 1000
	for range tries {
		at = netip.AddrPortFrom(a, uint16(first+rand.IntN(last-first)))
		var mark net.PacketConn
		if mark, err = net.ListenPacket("udp", at.String()); err != nil {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", at.String()); err != nil {
			mark.Close()
			continue
		}
		l.Close()
		return at, func() { mark.Close() }, nil
	}
	return netip.AddrPort{}, nil, fmt.Errorf("find a free port of %s: %w", a, err)
}
