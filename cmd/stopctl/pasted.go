package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/stopd/stopd/internal/flows"
)

// pasted reads a connection of TCP from a line.
func pasted(line string) (flows.Flow, error) {
	f, err := flows.Parse(line)
	if err == nil && !f.TCP() {
		err = fmt.Errorf("%s is of %s: hosts are asked about TCP", f, f.Protocol)
	}
	if err != nil {
		return flows.Flow{}, err
	}
	return f, nil
}

// pastedRequest gives the ports of a pasted connection as the asked host has them. Where nothing is said of it, the other end is
// asked for from here if it is this host's, else on behalf of it.
func pastedRequest(line string, host netip.Addr, behalf, from *string) (local, remote string, err error) {
	f, err := pasted(line)
	if err != nil {
		return "", "", err
	}
	// Each end of a connection that a gateway translates has it as it is on its side.
	var near, far netip.AddrPort
	for _, ends := range [][2]netip.AddrPort{{f.Source, f.Destination}, {f.FarDestination, f.FarSource}, {f.Destination, f.Source}} {
		if !near.IsValid() && ends[0].Addr() == host.Unmap() {
			near, far = ends[0], ends[1]
		}
	}
	if !near.IsValid() {
		return "", "", fmt.Errorf("%s is neither end of %s", host, f)
	}
	if *behalf == "" && *from == "" {
		if ownAddresses()[far.Addr()] {
			*from = far.Addr().String()
		} else {
			*behalf = far.Addr().String()
		}
	}
	return strconv.Itoa(int(near.Port())), strconv.Itoa(int(far.Port())), nil
}

// ownAddresses are those of this host's interfaces, as far as they can be read.
func ownAddresses() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own
}
