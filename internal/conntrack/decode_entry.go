package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/stopd/stopd/internal/nlattr"
)

// Types of messages: NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_ of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const (
	MessageNew    = 1 << 8
	MessageGet    = 1<<8 | 1
	MessageDelete = 1<<8 | 2
	MessageStats  = 1<<8 | 5
)

// Which tuple of an entry.
const (
	OriginalTuple = 1 // CTA_TUPLE_ORIG
	ReplyTuple    = 2 // CTA_TUPLE_REPLY
)

// Attributes, of linux/netfilter/nfnetlink_conntrack.h.
const (
	headerLen         = 4 // struct nfgenmsg
	ctaStatus         = 3
	ctaProtoInfo      = 4
	ctaZone           = 18
	ctaTimestamp      = 20
	ctaFilter         = 25
	ctaTupleIP        = 1
	ctaTupleProto     = 2
	ctaTupleZone      = 3
	ctaIPv4Src        = 1
	ctaIPv4Dst        = 2
	ctaIPv6Src        = 3
	ctaIPv6Dst        = 4
	ctaProtoNum       = 1
	ctaProtoSrcPort   = 2
	ctaProtoDstPort   = 3
	ctaProtoInfoTCP   = 1
	ctaTCPState       = 1
	ctaTCPFlagsOrig   = 4
	ctaTCPFlagsReply  = 5
	tcpLiberal        = 1 << 3 // IP_CT_TCP_FLAG_BE_LIBERAL
	ctaTimestampStart = 1
	ctaTimestampStop  = 2
	ctaStatsEntries   = 1
	ctaFilterOrig     = 1
	ctaFilterReply    = 2
	ctaFilterProtoNum = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	statusReplied     = 1 << 1 // IPS_SEEN_REPLY
	statusAssured     = 1 << 2 // IPS_ASSURED
)

const (
	afInet, afInet6 = 2, 10
	protoTCP        = 6
)

// errNotTCP says that an entry is of another protocol.
var errNotTCP = fmt.Errorf("not of TCP: %w", nlattr.ErrSyntax)

// A Tuple is the addresses of a TCP segment, never mapped ones.
type Tuple struct{ Src, Dst netip.AddrPort }

// Back is what is sent in answer to a segment.
func (t Tuple) Back() Tuple { return Tuple{t.Dst, t.Src} }

// An Entry is what is tracked of one connection.
type Entry struct {
	// Original and Reply are the packets of each direction as they come, before they are translated. Who sent the
	// first original one opened the connection.
	Original, Reply Tuple
	// Zone is that of both directions, 0 the default one; one of a single direction is not here.
	Zone uint16
	// State is the connection's, as the kernel made it out, in RFC 9293's words with hyphens; empty is not known.
	State string
	// Replied is true where something came back: without, whoever sent the first packet may have made up its sender.
	Replied bool
	// PickedUp is true where the kernel saw the connection first in its middle (the sysctl net.netfilter.nf_conntrack_tcp_loose): either end can have
	// opened it then. It is told by the windows, about which the kernel is liberal in both directions then (tcp_new of
	// net/netfilter/nf_conntrack_proto_tcp.c); of what has ended it is not told.
	PickedUp bool
	// Assured is true where packets went both ways after the connection was established.
	Assured bool
	// Begun and Ended are when the entry was made and destroyed, where the kernel notes that (the sysctl
	// net.netfilter.nf_conntrack_timestamp) and it has happened.
	Begun, Ended time.Time
}

// states are those of enum tcp_conntrack (linux/netfilter/nf_conntrack_tcp.h).
var states = [...]string{1: "SYN-SENT", 2: "SYN-RECEIVED", 3: "ESTABLISHED", 4: "FIN-WAIT", 5: "CLOSE-WAIT", 6: "LAST-ACK", 7: "TIME-WAIT", 8: "CLOSED", 9: "SYN-SENT"}

// Translate returns a packet as it leaves, and whether it belongs to the entry. What leaves is the reverse of
// what comes in the other direction.
func (e Entry) Translate(p Tuple) (Tuple, bool) {
	switch p {
	case e.Original:
		return e.Reply.Back(), true
	case e.Reply:
		return e.Original.Back(), true
	}
	return p, false
}

// Translated reports whether packets leave with other addresses than they came with.
func (e Entry) Translated() bool { return e.Reply != e.Original.Back() }

// Merged chooses among the entries that different zones have of one packet: that which translates it. Two that do
// so differently are an error.
func Merged(found []Entry, p Tuple) (Entry, bool, error) {
	if len(found) == 0 {
		return Entry{}, false, nil
	}
	best := found[0]
	for _, e := range found[1:] {
		was, _ := best.Translate(p)
		switch is, _ := e.Translate(p); {
		case is == p || is == was:
		case was == p:
			best = e
		default:
			return Entry{}, false, errors.New("connection tracking translates it differently in several zones")
		}
	}
	return best, true, nil
}

// header is the struct nfgenmsg of a request about a family.
func header(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{afInet, 0, 0, 0}
	}
	return []byte{afInet6, 0, 0, 0}
}

// AppendTuple appends a tuple as an attribute: OriginalTuple or ReplyTuple.
func AppendTuple(b []byte, which uint16, t Tuple) []byte {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if !t.Src.Addr().Is4() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	ip := nlattr.Append(nlattr.Append(nil, src, t.Src.Addr().AsSlice()), dst, t.Dst.Addr().AsSlice())
	proto := nlattr.Append(nil, ctaProtoNum, []byte{protoTCP})
	proto = nlattr.Append(proto, ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, t.Src.Port()))
	proto = nlattr.Append(proto, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, t.Dst.Port()))
	return nlattr.Append(b, which|nlattr.Nested, nlattr.Append(nlattr.Append(nil, ctaTupleIP|nlattr.Nested, ip), ctaTupleProto|nlattr.Nested, proto))
}

// GetRequest is the payload of a MessageGet for the entry of a zone that a packet belongs to, in either direction: the
// kernel looks in one table for both.
func GetRequest(p Tuple, zone uint16) []byte {
	b := AppendTuple(header(p.Src.Addr()), OriginalTuple, p)
	if zone != 0 {
		b = nlattr.Append(b, ctaZone, binary.BigEndian.AppendUint16(nil, zone))
	}
	return b
}

// DumpRequests are the payloads of the MessageGet that list, as dumps, the entries of TCP connections of each family. Kernels
// before 5.8 take no notice of the filter and answer with others as well.
func DumpRequests() (payloads [][]byte) {
	for _, family := range []byte{afInet, afInet6} {
		f := nlattr.Append(nil, ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, ctaFilterProtoNum))
		f = nlattr.Append(f, ctaFilterReply, make([]byte, 4))
		proto := nlattr.Append(nil, ctaProtoNum, []byte{protoTCP})
		b := nlattr.Append([]byte{family, 0, 0, 0}, OriginalTuple|nlattr.Nested, nlattr.Append(nil, ctaTupleProto|nlattr.Nested, proto))
		payloads = append(payloads, nlattr.Append(b, ctaFilter|nlattr.Nested, f))
	}
	return payloads
}

// StatsRequest is the payload of a MessageStats.
func StatsRequest() []byte { return make([]byte, headerLen) }

// ParseZones returns the zones of an entry that are not the default one: of both directions, or of each.
func ParseZones(b []byte) []uint16 {
	var zones []uint16
	zone := func(typ, want uint16, v []byte) {
		if typ == want && len(v) >= 2 && binary.BigEndian.Uint16(v) != 0 {
			zones = append(zones, binary.BigEndian.Uint16(v))
		}
	}
	if len(b) < headerLen {
		return nil
	}
	// What cannot be parsed ends the list; the entry itself is asked for again.
	_ = nlattr.Each(b[headerLen:], func(typ uint16, v []byte) {
		zone(typ, ctaZone, v)
		if typ == OriginalTuple || typ == ReplyTuple {
			_ = nlattr.Each(v, func(typ uint16, v []byte) { zone(typ, ctaTupleZone, v) })
		}
	})
	return zones
}

// ParseEntry parses an entry. Those of other protocols than TCP are errors.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) < headerLen {
		return Entry{}, fmt.Errorf("parse nfgenmsg: %w", nlattr.ErrSyntax)
	}
	var e Entry
	var bad error
	failed := func(err error) {
		if bad == nil {
			bad = err
		}
	}
	failed(nlattr.Each(b[headerLen:], func(typ uint16, v []byte) {
		var err error
		switch {
		case typ == OriginalTuple:
			e.Original, err = parseTuple(v)
		case typ == ReplyTuple:
			e.Reply, err = parseTuple(v)
		case typ == ctaStatus && len(v) >= 4:
			e.Replied = binary.BigEndian.Uint32(v)&statusReplied != 0
			e.Assured = binary.BigEndian.Uint32(v)&statusAssured != 0
		case typ == ctaZone && len(v) >= 2:
			e.Zone = binary.BigEndian.Uint16(v)
		case typ == ctaProtoInfo:
			e.State, e.PickedUp, err = parseState(v)
		case typ == ctaTimestamp:
			err = nlattr.Each(v, func(typ uint16, v []byte) {
				switch {
				case typ == ctaTimestampStart && len(v) >= 8:
					e.Begun = nanoseconds(v)
				case typ == ctaTimestampStop && len(v) >= 8:
					e.Ended = nanoseconds(v)
				}
			})
		}
		failed(err)
	}))
	if bad == nil && (!e.Original.Src.IsValid() || !e.Reply.Src.IsValid()) {
		bad = fmt.Errorf("a direction is missing: %w", nlattr.ErrSyntax)
	}
	if bad != nil {
		return Entry{}, fmt.Errorf("parse connection tracking: %w", bad)
	}
	return e, nil
}

// nanoseconds since 1970; zero is not known.
func nanoseconds(v []byte) time.Time {
	n := binary.BigEndian.Uint64(v)
	if n == 0 || n > 1<<63-1 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func parseState(b []byte) (state string, pickedUp bool, err error) {
	var inner error
	liberal := 0
	err = nlattr.Each(b, func(typ uint16, v []byte) {
		if typ != ctaProtoInfoTCP {
			return
		}
		inner = nlattr.Each(v, func(typ uint16, v []byte) {
			switch {
			case typ == ctaTCPState && len(v) >= 1 && int(v[0]) < len(states):
				state = states[v[0]]
			case (typ == ctaTCPFlagsOrig || typ == ctaTCPFlagsReply) && len(v) >= 1 && v[0]&tcpLiberal != 0:
				liberal++
			}
		})
	})
	return state, liberal == 2, errors.Join(err, inner)
}

func parseTuple(b []byte) (Tuple, error) {
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
	err := nlattr.Each(b, func(typ uint16, v []byte) {
		var err error
		switch typ {
		case ctaTupleIP:
			err = nlattr.Each(v, ip)
		case ctaTupleProto:
			err = nlattr.Each(v, proto)
		}
		if err != nil {
			inner = err
		}
	})
	switch {
	case err != nil:
		return Tuple{}, err
	case inner != nil:
		return Tuple{}, inner
	case !tcp:
		return Tuple{}, errNotTCP
	case !src.IsValid() || !dst.IsValid():
		return Tuple{}, fmt.Errorf("a tuple without addresses: %w", nlattr.ErrSyntax)
	}
	return Tuple{netip.AddrPortFrom(src, ports[0]), netip.AddrPortFrom(dst, ports[1])}, nil
}

// ParseStats parses an answer to a MessageStats: how many connections are tracked.
func ParseStats(b []byte) (uint32, error) {
	var n uint32
	found := false
	err := fmt.Errorf("parse nfgenmsg: %w", nlattr.ErrSyntax)
	if len(b) >= headerLen {
		err = nlattr.Each(b[headerLen:], func(typ uint16, v []byte) {
			if typ == ctaStatsEntries && len(v) >= 4 {
				n, found = binary.BigEndian.Uint32(v), true
			}
		})
	}
	if err == nil && !found {
		err = fmt.Errorf("parse statistics of connection tracking: %w", nlattr.ErrSyntax)
	}
	return n, err
}
