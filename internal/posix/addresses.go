package posix

import (
	"net"
	"net/netip"
	"slices"
)

// Addresses are the host's own, ascending.
func Addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var as []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				as = append(as, ip.Unmap())
			}
		}
	}
	slices.SortFunc(as, netip.Addr.Compare)
	return slices.Compact(as), nil
}
