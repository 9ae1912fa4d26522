package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd/internal/nlattr"
)

// Numbers of linux/rtnetlink.h, linux/if_link.h and linux/net_namespace.h.
const (
	rtmGetLink  = 18
	rtmGetRoute = 26
	rtmGetNSID  = 90

	rtMsgLen   = 12
	rtaDst     = 1
	rtaOIF     = 4
	rtaGateway = 5
	rtaVia     = 18
	rtnUnicast = 1
	rtnLocal   = 2

	ifInfoMsgLen    = 16
	iflaLink        = 5
	iflaMaster      = 10
	iflaLinkInfo    = 18
	iflaExtMask     = 29
	iflaLinkNetNSID = 37
	iflaInfoKind    = 1
	rtextSkipStats  = 1 << 3
	rtGenMsgLen     = 4 // struct rtgenmsg, padded
	netnsaNSID      = 1
	netnsaFD        = 3
	nsidNotAssigned = -1
	noNSID          = -2 // the other end of the link is in the same namespace
)

// A route is where a namespace sends packets for an address.
type route struct {
	local bool       // to itself
	next  netip.Addr // the next hop, or the address itself
	link  uint32     // index; 0 where there is no way
}

// routeRequest makes a struct rtmsg that asks for the route to one address (rtnetlink(7)).
func routeRequest(to netip.Addr) []byte {
	b := make([]byte, rtMsgLen)
	b[0], b[1] = afInet6, 128
	if to.Is4() {
		b[0], b[1] = afInet, 32
	}
	return nlattr.Append(b, rtaDst, to.AsSlice())
}

// parseRoute parses the answer: a route to the given address.
func parseRoute(to netip.Addr, b []byte) (route, error) {
	if len(b) < rtMsgLen {
		return route{}, fmt.Errorf("parse rtmsg: %w", errSyntax)
	}
	r := route{local: b[7] == rtnLocal, next: to}
	err := nlattr.Each(b[rtMsgLen:], func(typ uint16, v []byte) {
		switch {
		case typ == rtaOIF && len(v) >= 4:
			r.link = binary.NativeEndian.Uint32(v)
		case typ == rtaVia && len(v) > 2: // struct rtvia: a gateway of the other family
			v = v[2:]
			fallthrough
		case typ == rtaGateway:
			if a, ok := netip.AddrFromSlice(v); ok {
				r.next = a.Unmap()
			}
		}
	})
	if err != nil {
		return route{}, fmt.Errorf("parse rtmsg: %w", err)
	}
	if b[7] != rtnUnicast && !r.local {
		return route{}, nil // blackhole and the like
	}
	return r, nil
}

// A link is a network interface.
type link struct {
	index  uint32
	kind   string // veth, bridge, macvlan and so on; empty for devices
	other  uint32 // index of the other end of a veth, or of the link that this one is upon; 0 for none
	nsid   int32  // in which namespace that is; noNSID is the same
	master uint32 // index of the bridge that it is a port of
}

// linkRequest makes a struct ifinfomsg that asks for one link; in a dump, with index 0, for all.
func linkRequest(index uint32) []byte {
	b := make([]byte, ifInfoMsgLen)
	binary.NativeEndian.PutUint32(b[4:], index)
	return nlattr.Append(b, iflaExtMask, binary.NativeEndian.AppendUint32(nil, rtextSkipStats))
}

func parseLink(b []byte) (link, error) {
	if len(b) < ifInfoMsgLen {
		return link{}, fmt.Errorf("parse ifinfomsg: %w", errSyntax)
	}
	l := link{index: binary.NativeEndian.Uint32(b[4:]), nsid: noNSID}
	var inner error
	err := nlattr.Each(b[ifInfoMsgLen:], func(typ uint16, v []byte) {
		switch {
		case typ == iflaLinkInfo:
			inner = nlattr.Each(v, func(typ uint16, v []byte) {
				if typ == iflaInfoKind {
					l.kind = cString(v)
				}
			})
		case len(v) < 4:
		case typ == iflaLink:
			l.other = binary.NativeEndian.Uint32(v)
		case typ == iflaMaster:
			l.master = binary.NativeEndian.Uint32(v)
		case typ == iflaLinkNetNSID:
			l.nsid = int32(binary.NativeEndian.Uint32(v))
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return link{}, fmt.Errorf("parse ifinfomsg: %w", err)
	}
	return l, nil
}

// cString returns what stands before the first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	return text(b)
}

// nsidRequest asks which number a namespace gives to another, of which the daemon has a descriptor.
func nsidRequest(fd int) []byte {
	return nlattr.Append(make([]byte, rtGenMsgLen), netnsaFD, binary.NativeEndian.AppendUint32(nil, uint32(fd)))
}

// parseNSID parses the answer; nsidNotAssigned is none.
func parseNSID(b []byte) (int32, error) {
	id, found := int32(nsidNotAssigned), false
	err := fmt.Errorf("parse rtgenmsg: %w", errSyntax)
	if len(b) >= rtGenMsgLen {
		err = nlattr.Each(b[rtGenMsgLen:], func(typ uint16, v []byte) {
			if typ == netnsaNSID && len(v) >= 4 {
				id, found = int32(binary.NativeEndian.Uint32(v)), true
			}
		})
	}
	if err == nil && !found {
		err = fmt.Errorf("parse network namespace id: %w", errSyntax)
	}
	return id, err
}
