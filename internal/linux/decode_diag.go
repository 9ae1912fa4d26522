package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/nlattr"
)

// Numbers of linux/inet_diag.h, linux/unix_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20

	inetDiagInfo    = 2
	inetDiagReqLen  = 56
	inetDiagMsgLen  = 72
	inetDiagNoCooky = 0xffffffff

	unixDiagReqLen   = 24
	unixDiagMsgLen   = 16
	unixDiagName     = 0
	unixDiagPeer     = 2
	unixDiagShutdown = 6
	udiagShowName    = 1
	udiagShowPeer    = 4

	afUnix  = 1
	afInet  = 2
	afInet6 = 10

	protoTCP   = 6
	protoUDP   = 17
	protoRaw   = 255
	protoLite  = 136 // UDP-Lite (RFC 3828)
	protoMPTCP = 262
)

// tcpStates are the kernel's states (net/tcp_states.h) in RFC 9293's words.
var tcpStates = [...]string{"", "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT",
	"CLOSED", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "SYN-RECEIVED"}

const (
	stateSynSent  = 2
	stateFinWait1 = 4
	stateTimeWait = 6
	stateClosed   = 7
	stateListen   = 10
)

func stateName(kind host.Kind, state uint8) string {
	if int(state) >= len(tcpStates) || kind != host.TCP && state == stateClosed {
		return ""
	}
	return tcpStates[state]
}

// inetRequest makes a struct inet_diag_req_v2. For a dump both ends are zero.
func inetRequest(family, proto uint8, states uint32, local, remote netip.AddrPort, ifindex uint32) []byte {
	b := make([]byte, inetDiagReqLen)
	b[0], b[1] = family, proto
	if proto == protoTCP {
		b[2] = 1 << (inetDiagInfo - 1)
	}
	binary.NativeEndian.PutUint32(b[4:], states)
	putEnd := func(port, addr []byte, ap netip.AddrPort) {
		binary.BigEndian.PutUint16(port, ap.Port())
		if family == afInet && ap.Addr().Is4() {
			a := ap.Addr().As4()
			copy(addr, a[:])
		} else if family == afInet6 && ap.IsValid() {
			a := ap.Addr().As16()
			copy(addr, a[:])
		}
	}
	putEnd(b[8:10], b[12:28], local)
	putEnd(b[10:12], b[28:44], remote)
	binary.NativeEndian.PutUint32(b[44:], ifindex)
	binary.NativeEndian.PutUint32(b[48:], inetDiagNoCooky)
	binary.NativeEndian.PutUint32(b[52:], inetDiagNoCooky)
	return b
}

// An inetSocket is one answer of inet_diag.
type inetSocket struct {
	kind          host.Kind
	state         uint8
	local, remote netip.AddrPort
	ifindex       uint32
	cookie        uint64
	wqueue        uint32
	uid           uint32
	inode         uint64
	info          tcpInfo
	hasInfo       bool
}

// parseInet parses a struct inet_diag_msg and its attributes.
func parseInet(kind host.Kind, b []byte) (inetSocket, error) {
	if len(b) < inetDiagMsgLen {
		return inetSocket{}, fmt.Errorf("parse inet_diag_msg: %w", errSyntax)
	}
	s := inetSocket{kind: kind, state: b[1]}
	end := func(port, addr []byte) (netip.AddrPort, error) {
		var a netip.Addr
		switch b[0] {
		case afInet:
			a = netip.AddrFrom4([4]byte(addr[:4]))
		case afInet6:
			a = netip.AddrFrom16([16]byte(addr[:16])).Unmap()
		default:
			return netip.AddrPort{}, fmt.Errorf("parse inet_diag_msg: family %d: %w", b[0], errSyntax)
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)), nil
	}
	var err error
	if s.local, err = end(b[4:6], b[8:24]); err != nil {
		return inetSocket{}, err
	}
	if s.remote, err = end(b[6:8], b[24:40]); err != nil {
		return inetSocket{}, err
	}
	s.ifindex = binary.NativeEndian.Uint32(b[40:])
	s.cookie = uint64(binary.NativeEndian.Uint32(b[48:]))<<32 | uint64(binary.NativeEndian.Uint32(b[44:]))
	s.wqueue = binary.NativeEndian.Uint32(b[60:])
	s.uid = binary.NativeEndian.Uint32(b[64:])
	s.inode = uint64(binary.NativeEndian.Uint32(b[68:]))
	err = nlattr.Each(b[inetDiagMsgLen:], func(typ uint16, v []byte) {
		if typ == inetDiagInfo && kind == host.TCP {
			s.info, s.hasInfo = parseTCPInfo(v)
		}
	})
	if err != nil {
		return inetSocket{}, fmt.Errorf("parse inet_diag_msg: %w", err)
	}
	return s, nil
}

// parseAddress parses a struct ifaddrmsg and its attributes (rtnetlink(7)): a local address, and the index of
// the link that has it.
func parseAddress(b []byte) (netip.Addr, uint32, bool) {
	const header, address, local = 8, 1, 2
	if len(b) < header {
		return netip.Addr{}, 0, false
	}
	var a netip.Addr
	err := nlattr.Each(b[header:], func(typ uint16, v []byte) {
		// On a link to one other host the address is that host's, and only the local one ours.
		if typ == local || typ == address && !a.IsValid() {
			if x, ok := netip.AddrFromSlice(v); ok {
				a = x.Unmap()
			}
		}
	})
	return a, binary.NativeEndian.Uint32(b[4:]), err == nil && a.IsValid()
}

// A tcpInfo is the part of struct tcp_info (linux/tcp.h, 4.19 and later) that tells the direction and what has passed.
type tcpInfo struct {
	state                      uint8
	unacked, notsent           uint32
	acked, sent, retransmitted uint64
	received                   uint64
	// Milliseconds since data were last sent, and came; since it was established where none were.
	sentAgo, receivedAgo uint32
}

// settled reports whether nothing was sent or acknowledged between two reads.
func (i tcpInfo) settled(last tcpInfo) bool {
	i.received, i.sentAgo, i.receivedAgo = last.received, last.sentAgo, last.receivedAgo
	return i == last
}

// bytes is what has passed. A SYN and a FIN may be among what is acknowledged and received.
func (i tcpInfo) bytes() host.Bytes {
	return host.Bytes{Sent: max(i.sent-min(i.retransmitted, i.sent), i.acked), Acknowledged: i.acked, Received: i.received}
}

// last is when data were last sent and came, of what was read at a time.
func (i tcpInfo) last(at time.Time) host.Last {
	ago := func(ms uint32) time.Time { return at.Add(-time.Duration(ms) * time.Millisecond) }
	return host.Last{Sent: ago(i.sentAgo), Received: ago(i.receivedAgo)}
}

func parseTCPInfo(b []byte) (tcpInfo, bool) {
	if len(b) < 216 {
		return tcpInfo{}, false
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	return tcpInfo{state: b[0], unacked: u32(b[24:]), notsent: u32(b[144:]),
		acked: u64(b[120:]), received: u64(b[128:]), sent: u64(b[200:]), retransmitted: u64(b[208:]),
		sentAgo: u32(b[44:]), receivedAgo: u32(b[52:])}, true
}

// direction tells which end opened a connection from its own counters. The SYN of an active open takes a
// sequence number, so when it is acknowledged bytes_acked counts one octet that bytes_sent does not; the
// SYN of a passive open is not counted (net/ipv4/tcp_input.c). With what is in flight and a FIN set off,
// the difference is 1 for the end that opened and 0 for the other; anything else tells nothing.
//
// inFlight is SND.NXT - SND.UNA. It comes from another read than the rest, so where anything is in flight
// the caller must have seen the same values twice.
func (i tcpInfo) direction(inFlight uint64) host.Direction {
	if i.state == stateSynSent {
		return host.Outbound
	}
	var fin uint64
	switch tcpStates[min(int(i.state), len(tcpStates)-1)] {
	case "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK":
		if i.notsent == 0 {
			fin = 1
		}
	}
	switch i.acked + inFlight - (i.sent - i.retransmitted) - fin {
	case 0:
		return host.Inbound
	case 1:
		return host.Outbound
	}
	return host.UnknownDirection
}

// unixRequest makes a struct unix_diag_req that dumps all UNIX sockets of the namespace.
func unixRequest() []byte {
	b := make([]byte, unixDiagReqLen)
	b[0] = afUnix
	binary.NativeEndian.PutUint32(b[4:], 0xffffffff)
	binary.NativeEndian.PutUint32(b[12:], udiagShowName|udiagShowPeer)
	binary.NativeEndian.PutUint32(b[16:], inetDiagNoCooky)
	binary.NativeEndian.PutUint32(b[20:], inetDiagNoCooky)
	return b
}

// A unixSocket is one answer of unix_diag.
type unixSocket struct {
	typ, state  uint8
	inode, peer uint64
	path        string // abstract names begin with @
	noRead      bool   // shut down
	noWrite     bool
}

// parseUnix parses a struct unix_diag_msg and its attributes.
func parseUnix(b []byte) (unixSocket, error) {
	if len(b) < unixDiagMsgLen || b[0] != afUnix {
		return unixSocket{}, fmt.Errorf("parse unix_diag_msg: %w", errSyntax)
	}
	s := unixSocket{typ: b[1], state: b[2], inode: uint64(binary.NativeEndian.Uint32(b[4:]))}
	err := nlattr.Each(b[unixDiagMsgLen:], func(typ uint16, v []byte) {
		switch {
		case typ == unixDiagName && len(v) > 0:
			s.path = unixPath(v)
		case typ == unixDiagPeer && len(v) >= 4:
			s.peer = uint64(binary.NativeEndian.Uint32(v))
		case typ == unixDiagShutdown && len(v) >= 1:
			s.noRead, s.noWrite = v[0]&1 != 0, v[0]&2 != 0
		}
	})
	if err != nil {
		return unixSocket{}, fmt.Errorf("parse unix_diag_msg: %w", err)
	}
	return s, nil
}

// unixPath reads the name of a UNIX socket (unix(7)): a path, or an abstract name after a NUL, which may
// hold further NULs.
func unixPath(v []byte) string {
	if v[0] == 0 {
		return "@" + text(v[1:])
	}
	for i, c := range v {
		if c == 0 {
			v = v[:i]
			break
		}
	}
	return text(v)
}

// unixTypes names the types of UNIX sockets.
var unixTypes = map[uint8]string{1: "stream", 2: "dgram", 5: "seqpacket"}

// peersOf chooses, among sockets, those that can exchange datagrams with one of the given ends.
func peersOf(local, remote netip.AddrPort, all []inetSocket) []uint64 {
	var inodes []uint64
	for _, s := range all {
		from, to := connectedTo(s.remote, local), connectedTo(remote, s.local)
		unconnected, ours := s.remote.Port() == 0, remote.Port() == 0
		if s.inode != 0 && (from && (to || ours) || to && unconnected) {
			inodes = append(inodes, s.inode)
		}
	}
	return inodes
}

// connectedTo reports whether a remote address is that of a socket with the given local one.
func connectedTo(remote, local netip.AddrPort) bool {
	return remote.Port() != 0 && remote.Port() == local.Port() &&
		(remote.Addr() == local.Addr() || local.Addr().IsUnspecified())
}
