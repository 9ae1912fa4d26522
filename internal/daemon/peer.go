package daemon

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/settings"
	"github.com/stopd/stopd/server"
)

// A Peer is some of those who ask, who are answered otherwise than the rest.
type Peer struct {
	Hosts  []Network `toml:"hosts"`
	System string    `toml:"system"` // empty is OTHER
	Names  bool      `toml:"names"`
	Pin    string    `toml:"pin"`
}

// A Network is a prefix. A single address is one, too.
type Network struct{ netip.Prefix }

// UnmarshalText parses an address or a prefix.
func (n *Network) UnmarshalText(b []byte) (err error) {
	n.Prefix, err = settings.ParseNetwork(b)
	return err
}

// checkPeers returns what is wrong with the peers. Of two that have the same prefix, nobody could tell which decides.
func (c *Config) checkPeers() (errs []error) {
	seen := map[netip.Prefix]bool{}
	for i, p := range c.Peers {
		if len(p.Hosts) == 0 {
			errs = append(errs, fmt.Errorf("peer.hosts is empty, of peer %d", i+1))
		}
		if s := p.System; s != "" && s != server.SystemOther && s != server.SystemUnix {
			errs = append(errs, fmt.Errorf("peer.system is %q: none of %s, %s", s, server.SystemOther, server.SystemUnix))
		}
		if p.Pin != "" {
			if err := stop.CheckPin(p.Pin); err != nil {
				errs = append(errs, fmt.Errorf("peer.pin: %w", err))
			}
		}
		for _, h := range p.Hosts {
			if seen[h.Masked()] {
				errs = append(errs, fmt.Errorf("peer.hosts: %q is there twice", h.Masked()))
			}
			seen[h.Masked()] = true
		}
	}
	return errs
}

// serverPeers are the peers as the server has them.
func (c *Config) serverPeers() (ps []server.Peer) {
	for _, p := range c.Peers {
		ps = append(ps, server.Peer{Hosts: prefixes(p.Hosts), System: cmp.Or(p.System, server.SystemOther), Names: p.Names, Pin: p.Pin})
	}
	return ps
}

func prefixes(ns []Network) (ps []netip.Prefix) {
	for _, n := range ns {
		ps = append(ps, n.Prefix)
	}
	return ps
}

// names reports whether there are names that who asks from an address may have.
func (c *Config) names(from netip.Addr) bool {
	return serverConfig(*c).Naming(stop.Question{Requester: from}) != stop.NameNever
}
