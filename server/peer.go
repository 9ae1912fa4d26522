package server

import (
	"net/netip"
	"strings"

	"github.com/stopd/stopd"
)

// A Peer is some of those who ask, who are answered otherwise than the rest.
type Peer struct {
	Hosts  []netip.Prefix
	System string // the operating system that replies name
	Names  bool   // whether ID requests are answered with user names
	Pin    string // of its key, see [stop.PinOf]: it is neither asked nor answered in plain; empty is none
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

// Naming says when a question is answered with the user's name. Only the other end of the connection gets one, for ID:
// who asks on behalf of others gets tokens.
func (c *Config) Naming(q stop.Question) stop.Naming {
	switch {
	case q.Type != stop.ID || q.OnBehalf():
		return stop.NameNever
	case c.peer(q.Requester).Names:
		return stop.NameUnlessHidden
	case c.OptIn:
		return stop.NameIfListed
	}
	return stop.NameNever
}

// maxName is how many octets a user name may have (RFC 1413, the user identification).
const maxName = 512

// sendable reports whether a name arrives as it is: printable ASCII, the character set of a reply that names none, without
// blanks at its ends, which readers drop. What looks like a token would be taken for one.
func sendable(name string) bool {
	if name == "" || len(name) > maxName || strings.TrimSpace(name) != name {
		return false
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	_, err := stop.ParseToken(name)
	return err != nil
}
