package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Numbers of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const (
	ctGet      = 1<<8 | 1 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
	ctGetStats = 1<<8 | 5 // IPCTNL_MSG_CT_GET_STATS

	nfGenMsgLen       = 4
	ctaTupleOrig      = 1
	ctaTupleReply     = 2
	ctaZone           = 18
	ctaTupleIP        = 1
	ctaTupleProto     = 2
	ctaIPv4Src        = 1
	ctaIPv4Dst        = 2
	ctaIPv6Src        = 3
	ctaIPv6Dst        = 4
	ctaProtoNum       = 1
	ctaProtoSrcPort   = 2
	ctaProtoDstPort   = 3
	ctaStatsEntries   = 1
	ctaFilter         = 25
	ctaFilterOrig     = 1
	ctaFilterReply    = 2
	ctaFilterProtoNum = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	ctaTupleZone      = 3

	nested = 0x8000 // NLA_F_NESTED
)

// A packet is the addresses of a TCP segment, never mapped ones.
type packet struct{ src, dst netip.AddrPort }

// back is what is sent in answer to a packet.
func (p packet) back() packet { return packet{p.dst, p.src} }

// A tracked is an entry of connection tracking: the packets of each direction as they come, before they are
// translated.
type tracked struct {
	original, reply packet
}

// translate returns a packet as it leaves, and whether it belongs to the entry. What leaves is the reverse of
// what comes in the other direction.
func (t tracked) translate(p packet) (packet, bool) {
	switch p {
	case t.original:
		return t.reply.back(), true
	case t.reply:
		return t.original.back(), true
	}
	return p, false
}

// appendAttribute appends a netlink attribute.
func appendAttribute(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func nfGenMsg(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{afInet, 0, 0, 0}
	}
	return []byte{afInet6, 0, 0, 0}
}

// tupleAttribute makes a CTA_TUPLE_ORIG or CTA_TUPLE_REPLY.
func tupleAttribute(typ uint16, p packet) []byte {
	var ip, proto []byte
	if p.src.Addr().Is4() {
		ip = appendAttribute(appendAttribute(nil, ctaIPv4Src, p.src.Addr().AsSlice()), ctaIPv4Dst, p.dst.Addr().AsSlice())
	} else {
		ip = appendAttribute(appendAttribute(nil, ctaIPv6Src, p.src.Addr().AsSlice()), ctaIPv6Dst, p.dst.Addr().AsSlice())
	}
	proto = appendAttribute(proto, ctaProtoNum, []byte{protoTCP})
	proto = appendAttribute(proto, ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, p.src.Port()))
	proto = appendAttribute(proto, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, p.dst.Port()))
	return appendAttribute(nil, typ|nested, appendAttribute(appendAttribute(nil, ctaTupleIP|nested, ip), ctaTupleProto|nested, proto))
}

// merged chooses among the entries that different zones have of one packet: that which translates it. Two that do
// so differently are an error.
func merged(found []tracked, p packet) (tracked, bool, error) {
	if len(found) == 0 {
		return tracked{}, false, nil
	}
	best := found[0]
	for _, t := range found[1:] {
		was, _ := best.translate(p)
		switch is, _ := t.translate(p); {
		case is == p || is == was:
		case was == p:
			best = t
		default:
			return tracked{}, false, errors.New("connection tracking translates it differently in several zones")
		}
	}
	return best, true, nil
}

// trackedRequest asks for the entry of a zone that a packet belongs to, in either direction: the kernel looks in
// one table for both.
func trackedRequest(p packet, zone uint16) []byte {
	b := append(nfGenMsg(p.src.Addr()), tupleAttribute(ctaTupleOrig, p)...)
	if zone != 0 {
		b = appendAttribute(b, ctaZone, binary.BigEndian.AppendUint16(nil, zone))
	}
	return b
}

// tcpRequest asks, in a dump, for the entries of TCP connections of a family. Kernels before 5.8 take no notice of the
// filter and answer with others as well.
func tcpRequest(family uint8) []byte {
	f := appendAttribute(nil, ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, ctaFilterProtoNum))
	f = appendAttribute(f, ctaFilterReply, make([]byte, 4))
	proto := appendAttribute(nil, ctaProtoNum, []byte{protoTCP})
	b := appendAttribute([]byte{family, 0, 0, 0}, ctaTupleOrig|nested, appendAttribute(nil, ctaTupleProto|nested, proto))
	return appendAttribute(b, ctaFilter|nested, f)
}

// parseZones returns the zones of an entry that are not the default one: of both directions, or of each.
func parseZones(b []byte) []uint16 {
	var zones []uint16
	zone := func(typ, want uint16, v []byte) {
		if typ == want && len(v) >= 2 && binary.BigEndian.Uint16(v) != 0 {
			zones = append(zones, binary.BigEndian.Uint16(v))
		}
	}
	if len(b) < nfGenMsgLen {
		return nil
	}
	// What cannot be parsed ends the list; the entry itself is asked for again.
	_ = attributes(b[nfGenMsgLen:], func(typ uint16, v []byte) {
		zone(typ, ctaZone, v)
		if typ == ctaTupleOrig || typ == ctaTupleReply {
			_ = attributes(v, func(typ uint16, v []byte) { zone(typ, ctaTupleZone, v) })
		}
	})
	return zones
}

// parseTracked parses an entry. Those of other protocols than TCP are errors.
func parseTracked(b []byte) (tracked, error) {
	if len(b) < nfGenMsgLen {
		return tracked{}, fmt.Errorf("parse nfgenmsg: %w", errSyntax)
	}
	var t tracked
	var bad error
	err := attributes(b[nfGenMsgLen:], func(typ uint16, v []byte) {
		var err error
		switch {
		case typ == ctaTupleOrig:
			t.original, err = parseTuple(v)
		case typ == ctaTupleReply:
			t.reply, err = parseTuple(v)
		}
		if err != nil {
			bad = err
		}
	})
	if err == nil {
		err = bad
	}
	if err == nil && (!t.original.src.IsValid() || !t.reply.src.IsValid()) {
		err = fmt.Errorf("a direction is missing: %w", errSyntax)
	}
	if err != nil {
		return tracked{}, fmt.Errorf("parse connection tracking: %w", err)
	}
	return t, nil
}

func parseTuple(b []byte) (packet, error) {
	var src, dst netip.Addr
	var ports [2]uint16
	tcp := false
	ip := func(typ uint16, v []byte) {
		a, ok := netip.AddrFromSlice(v)
		switch {
		case !ok:
		case typ == ctaIPv4Src && len(v) == 4 || typ == ctaIPv6Src && len(v) == 16:
			src = a.Unmap()
		case typ == ctaIPv4Dst && len(v) == 4 || typ == ctaIPv6Dst && len(v) == 16:
			dst = a.Unmap()
		}
	}
	proto := func(typ uint16, v []byte) {
		switch {
		case typ == ctaProtoNum && len(v) >= 1:
			tcp = v[0] == protoTCP
		case (typ == ctaProtoSrcPort || typ == ctaProtoDstPort) && len(v) >= 2:
			ports[typ-ctaProtoSrcPort] = binary.BigEndian.Uint16(v)
		}
	}
	var inner error
	err := attributes(b, func(typ uint16, v []byte) {
		var err error
		switch typ {
		case ctaTupleIP:
			err = attributes(v, ip)
		case ctaTupleProto:
			err = attributes(v, proto)
		}
		if err != nil {
			inner = err
		}
	})
	switch {
	case err != nil:
		return packet{}, err
	case inner != nil:
		return packet{}, inner
	case !tcp || !src.IsValid() || !dst.IsValid():
		return packet{}, fmt.Errorf("not a tuple of TCP: %w", errSyntax)
	}
	return packet{netip.AddrPortFrom(src, ports[0]), netip.AddrPortFrom(dst, ports[1])}, nil
}

// parseEntries parses an answer to IPCTNL_MSG_CT_GET_STATS: how many connections are tracked.
func parseEntries(b []byte) (uint32, error) {
	var n uint32
	found := false
	err := fmt.Errorf("parse nfgenmsg: %w", errSyntax)
	if len(b) >= nfGenMsgLen {
		err = attributes(b[nfGenMsgLen:], func(typ uint16, v []byte) {
			if typ == ctaStatsEntries && len(v) >= 4 {
				n, found = binary.BigEndian.Uint32(v), true
			}
		})
	}
	if err == nil && !found {
		err = fmt.Errorf("parse statistics of connection tracking: %w", errSyntax)
	}
	return n, err
}

// parseAnswer returns the payload of the message (struct nlmsghdr, netlink(7)) that answers a request. An error
// that the kernel answered is a syscall.Errno.
func parseAnswer(b []byte, sequence uint32) ([]byte, error) {
	const header, nlmsgError = 16, 2
	if len(b) < header {
		return nil, fmt.Errorf("parse nlmsghdr: %w", errSyntax)
	}
	size := binary.NativeEndian.Uint32(b)
	if size < header || uint64(size) > uint64(len(b)) || binary.NativeEndian.Uint32(b[8:]) != sequence {
		return nil, fmt.Errorf("parse nlmsghdr: %w", errSyntax)
	}
	payload := b[header:size]
	if binary.NativeEndian.Uint16(b[4:]) != nlmsgError {
		return payload, nil
	}
	if len(payload) < 4 {
		return nil, fmt.Errorf("parse nlmsgerr: %w", errSyntax)
	}
	if e := int32(binary.NativeEndian.Uint32(payload)); e < 0 {
		return nil, syscall.Errno(-e)
	}
	return nil, fmt.Errorf("parse nlmsgerr: no answer: %w", errSyntax)
}
