//go:build !linux

package server

import (
	"net"
	"net/netip"
)

func sentTo(net.Conn) (netip.Addr, error) { return netip.Addr{}, nil }
