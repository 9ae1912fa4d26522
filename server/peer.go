package server

import "net/netip"

// A Peer is some of those who ask, who are answered otherwise than the rest.
type Peer struct {
	Hosts  []netip.Prefix
	System string // the operating system that replies name
	Names  bool   // whether ID requests are answered with user names
	Pin    string // of its key; empty is none
}

// The operating systems of replies. Some IRC servers refuse OTHER.
const (
	SystemOther = "OTHER"
	SystemUnix  = "UNIX"
)

// peer is what holds for who asks from an address: the peer with the longest prefix that has it.
func (c *Config) peer(a netip.Addr) Peer {
	a = a.Unmap().WithZone("")
	found, bits := Peer{System: SystemOther}, -1
	for _, p := range c.Peers {
		for _, h := range p.Hosts {
			if h.Bits() > bits && h.Contains(a) {
				found, bits = p, h.Bits()
			}
		}
	}
	return found
}
