package linux

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
)

func nativeUint16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func nativeUint32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func nativeUint64(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }

// recorded returns an answer of a Linux 6.18 on amd64, recorded by TestRecord.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	return recordedBy(t, "diag", name)
}

// recordedBy is recorded for any of the kernel's netlink protocols.
func recordedBy(t testing.TB, protocol, name string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("recorded on a machine with the other byte order")
	}
	b, err := os.ReadFile(filepath.Join("testdata", protocol, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseInetRecorded(t *testing.T) {
	for name, addr := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1", "mapped": "127.0.0.1"} {
		c, err := parseInet(host.TCP, recorded(t, name+"-client"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := parseInet(host.TCP, recorded(t, name+"-server"))
		if err != nil {
			t.Fatal(err)
		}
		if a := netip.MustParseAddr(addr); c.local.Addr() != a || c.remote.Addr() != a || c.local != s.remote || c.remote != s.local || c.local.Port() == c.remote.Port() {
			t.Errorf("%s: ends %v, %v and %v, %v", name, c.local, c.remote, s.local, s.remote)
		}
		// 1000 octets went from the client to the server, and were acknowledged.
		if want := (tcpInfo{state: 1, acked: 1001, sent: 1000}); c.info != want || !c.hasInfo || c.state != 1 {
			t.Errorf("%s client: %+v", name, c)
		}
		if want := (tcpInfo{state: 1, received: 1000}); s.info != want || !s.hasInfo || s.state != 1 {
			t.Errorf("%s server: %+v", name, s)
		}
		if c.info.direction(0) != host.Outbound || s.info.direction(0) != host.Inbound {
			t.Errorf("%s: directions %s and %s", name, c.info.direction(0), s.info.direction(0))
		}
		if c.inode == 0 || s.inode == 0 || c.inode == s.inode || c.cookie == 0 || c.cookie == s.cookie || c.uid != 0 || c.ifindex != 0 {
			t.Errorf("%s: %+v, %+v", name, c, s)
		}
	}
	u, err := parseInet(host.UDP, recorded(t, "udp4"))
	if err != nil || u.hasInfo || u.local.Addr() != netip.MustParseAddr("127.0.0.1") || u.inode == 0 || u.remote.Port() == 0 {
		t.Errorf("udp4: %+v, %v", u, err)
	}
}

func TestParseUnixRecorded(t *testing.T) {
	s := map[string]unixSocket{}
	for _, name := range []string{"listener", "client", "server", "abstract", "dgram"} {
		u, err := parseUnix(recorded(t, "unix-"+name))
		if err != nil || u.inode == 0 {
			t.Fatalf("%s: %+v, %v", name, u, err)
		}
		s[name] = u
	}
	if l := s["listener"]; unixTypes[l.typ] != "stream" || l.state != stateListen || l.peer != 0 || !strings.HasSuffix(l.path, "/stream") {
		t.Errorf("listener: %+v", l)
	}
	if c := s["client"]; c.peer != s["server"].inode || c.path != "" || !c.noWrite || c.noRead || unixTypes[c.typ] != "stream" {
		t.Errorf("client, which has shut down its sending: %+v", c)
	}
	if v := s["server"]; v.peer != s["client"].inode || v.path != s["listener"].path || v.noWrite || !v.noRead {
		t.Errorf("server: %+v", v)
	}
	if d := s["abstract"]; d.path != "@stopd\x00test" || d.peer != 0 || unixTypes[d.typ] != "dgram" {
		t.Errorf("abstract: %+v", d)
	}
	if d := s["dgram"]; d.peer != s["abstract"].inode || d.path != "" {
		t.Errorf("dgram: %+v", d)
	}
}

// attribute makes a struct nlattr.
func attribute(typ uint16, value []byte) []byte {
	b := append(append(nativeUint16(uint16(4+len(value))), nativeUint16(typ)...), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func TestParseDiagHostile(t *testing.T) {
	inet := make([]byte, inetDiagMsgLen)
	inet[0], inet[1] = afInet, 1
	un := make([]byte, unixDiagMsgLen)
	un[0] = afUnix
	for name, tail := range map[string][]byte{
		"attribute of length 0":      append(nativeUint16(0), 0, 0),
		"attribute of length 3":      append(nativeUint16(3), 0, 0),
		"attribute beyond the end":   append(nativeUint16(9), 0, 0, 1, 2, 3, 4),
		"attribute of 65535 octets":  append(nativeUint16(65535), 2, 0),
		"second attribute is broken": append(attribute(9, []byte{1}), append(nativeUint16(1), 0, 0)...),
	} {
		if s, err := parseInet(host.TCP, append(slices.Clone(inet), tail...)); err == nil || s != (inetSocket{}) {
			t.Errorf("inet, %s: %+v, %v", name, s, err)
		}
		if s, err := parseUnix(append(slices.Clone(un), tail...)); err == nil || s != (unixSocket{}) {
			t.Errorf("unix, %s: %+v, %v", name, s, err)
		}
	}
	for n := range inetDiagMsgLen {
		if s, err := parseInet(host.TCP, inet[:n]); err == nil || s != (inetSocket{}) {
			t.Errorf("inet_diag_msg of %d octets: %+v, %v", n, s, err)
		}
	}
	for n := range unixDiagMsgLen {
		if s, err := parseUnix(un[:n]); err == nil || s != (unixSocket{}) {
			t.Errorf("unix_diag_msg of %d octets: %+v, %v", n, s, err)
		}
	}
	for _, family := range []byte{0, afUnix, 16, 255} {
		b := slices.Clone(inet)
		b[0] = family
		if s, err := parseInet(host.TCP, b); err == nil || s != (inetSocket{}) {
			t.Errorf("family %d: %+v, %v", family, s, err)
		}
	}
	un[0] = afInet
	if s, err := parseUnix(un); err == nil {
		t.Errorf("unix_diag_msg of another family: %+v", s)
	}
	// Less than a whole tcp_info tells nothing; a type with the flag NLA_F_NESTED is the same type.
	for n, has := range map[int]bool{0: false, 104: false, 215: false, 216: true, 280: true} {
		s, err := parseInet(host.TCP, append(slices.Clone(inet), attribute(inetDiagInfo|0x8000, make([]byte, n))...))
		if err != nil || s.hasInfo != has {
			t.Errorf("tcp_info of %d octets: %+v, %v", n, s, err)
		}
	}
	// The ends of an attribute's padding may be missing.
	if s, err := parseInet(host.TCP, append(slices.Clone(inet), attribute(9, []byte{1})[:5]...)); err != nil || s.state != 1 {
		t.Errorf("last attribute without padding: %+v, %v", s, err)
	}
}

func TestUnixPath(t *testing.T) {
	for in, want := range map[string]string{
		"/run/a\x00": "/run/a", "/run/a": "/run/a", "/run/a\x00b": "/run/a", "\x00abc": "@abc", "\x00a\x00\x00": "@a\x00\x00", "\x00": "@",
		"\x00\xff": `@\xff`, "/\xff": `/\xff`,
	} {
		if got := unixPath([]byte(in)); got != want {
			t.Errorf("unixPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestStateName(t *testing.T) {
	for _, tc := range []struct {
		kind  host.Kind
		state uint8
		want  string
	}{
		{host.TCP, 1, "ESTABLISHED"}, {host.TCP, 2, "SYN-SENT"}, {host.TCP, 3, "SYN-RECEIVED"}, {host.TCP, 12, "SYN-RECEIVED"}, {host.TCP, 7, "CLOSED"},
		{host.TCP, 10, "LISTEN"}, {host.TCP, 11, "CLOSING"}, {host.TCP, 0, ""}, {host.TCP, 13, ""}, {host.TCP, 255, ""},
		{host.UDP, 1, "ESTABLISHED"}, {host.UDP, 7, ""},
	} {
		if got := stateName(tc.kind, tc.state); got != tc.want {
			t.Errorf("%s %d: %q, want %q", tc.kind, tc.state, got, tc.want)
		}
	}
}

func TestInfoDirection(t *testing.T) {
	const established, synSent, finWait1, finWait2, closing, lastAck, closeWait = 1, 2, 4, 5, 11, 9, 8
	for _, tc := range []struct {
		name     string
		i        tcpInfo
		inFlight uint64
		want     host.Direction
	}{
		{"fresh, opened", tcpInfo{state: established, acked: 1}, 0, host.Outbound},
		{"fresh, accepted", tcpInfo{state: established}, 0, host.Inbound},
		{"SYN-SENT", tcpInfo{state: synSent, unacked: 1}, 1, host.Outbound},
		{"in flight, opened", tcpInfo{state: established, unacked: 2, acked: 101, sent: 3100}, 3000, host.Outbound},
		{"in flight, accepted", tcpInfo{state: established, unacked: 2, acked: 100, sent: 3100}, 3000, host.Inbound},
		{"retransmitted", tcpInfo{state: established, acked: 101, sent: 3100, retransmitted: 3000}, 0, host.Outbound},
		{"FIN acknowledged, opened", tcpInfo{state: finWait2, acked: 12, sent: 10}, 0, host.Outbound},
		{"FIN acknowledged, accepted", tcpInfo{state: finWait2, acked: 11, sent: 10}, 0, host.Inbound},
		{"FIN in flight, opened", tcpInfo{state: finWait1, unacked: 1, acked: 11, sent: 10}, 1, host.Outbound},
		{"FIN in flight, accepted", tcpInfo{state: lastAck, unacked: 1, acked: 10, sent: 10}, 1, host.Inbound},
		{"FIN not sent, opened", tcpInfo{state: finWait1, notsent: 5, acked: 11, sent: 10}, 0, host.Outbound},
		{"FIN not sent, accepted", tcpInfo{state: closing, notsent: 5, acked: 10, sent: 10}, 0, host.Inbound},
		{"FIN received, opened", tcpInfo{state: closeWait, acked: 11, sent: 10}, 0, host.Outbound},
		{"lost on output", tcpInfo{state: established, acked: 10, sent: 5}, 0, host.UnknownDirection},
		{"fewer than one", tcpInfo{state: established, acked: 4, sent: 5}, 0, host.UnknownDirection},
		{"state out of range", tcpInfo{state: 255, acked: 9}, 0, host.UnknownDirection},
	} {
		if got := tc.i.direction(tc.inFlight); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func FuzzParseInet(f *testing.F) {
	for _, name := range []string{"tcp4-client", "tcp6-server", "mapped-client", "udp4"} {
		f.Add(recorded(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseInet(host.TCP, b)
		if err != nil {
			if s != (inetSocket{}) {
				t.Errorf("%+v with error %v", s, err)
			}
			return
		}
		if s.local.Addr().Is4In6() || s.remote.Addr().Is4In6() || !s.local.Addr().IsValid() {
			t.Errorf("ends %v, %v", s.local, s.remote)
		}
		stateName(s.kind, s.state)
		s.info.direction(uint64(s.wqueue) - uint64(s.info.notsent))
	})
}

func FuzzParseUnix(f *testing.F) {
	for _, name := range []string{"listener", "client", "abstract", "dgram"} {
		f.Add(recorded(f, "unix-"+name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseUnix(b)
		if err != nil && s != (unixSocket{}) {
			t.Errorf("%+v with error %v", s, err)
		}
		if len(s.path) > 4*len(b)+1 {
			t.Errorf("a name of %d octets from %d", len(s.path), len(b))
		}
	})
}

// TestInetRequest reads requests as the kernel does (struct inet_diag_req_v2).
func TestInetRequest(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tc := range []struct {
		family        uint8
		local, remote string
		src, dst      string // 16 octets each
	}{
		{afInet, "192.0.2.1:22", "198.51.100.2:40000", "\xc0\x00\x02\x01", "\xc6\x33\x64\x02"},
		{afInet6, "[2001:db8::1]:22", "[::ffff:192.0.2.1]:40000", "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01"},
	} {
		b := inetRequest(tc.family, protoTCP, 0xffffffff, ap(tc.local), ap(tc.remote), 7)
		pad := func(s string) string { return s + strings.Repeat("\x00", 16-len(s)) }
		if len(b) != inetDiagReqLen || b[0] != tc.family || b[1] != protoTCP || b[2] != 2 ||
			string(b[8:12]) != "\x00\x16\x9c\x40" || string(b[12:28]) != pad(tc.src) || string(b[28:44]) != pad(tc.dst) ||
			!slices.Equal(b[44:48], nativeUint32(7)) || string(b[48:]) != strings.Repeat("\xff", 8) {
			t.Errorf("%s: % x", tc.local, b)
		}
	}
	if b := inetRequest(afInet, protoUDP, 2, netip.AddrPort{}, netip.AddrPort{}, 0); b[2] != 0 || !slices.Equal(b[8:44], make([]byte, 36)) {
		t.Errorf("dump: % x", b)
	}
}

func TestPeersOf(t *testing.T) {
	ap := netip.MustParseAddrPort
	const any4 = "0.0.0.0:0"
	all := []inetSocket{
		{inode: 1, local: ap("127.0.0.1:53"), remote: ap(any4)},             // a server
		{inode: 2, local: ap("127.0.0.1:4000"), remote: ap("127.0.0.1:53")}, // its clients
		{inode: 3, local: ap("127.0.0.1:4001"), remote: ap("127.0.0.1:53")},
		{inode: 4, local: ap("127.0.0.1:5000"), remote: ap("127.0.0.1:5001")}, // a pair
		{inode: 5, local: ap("127.0.0.1:5001"), remote: ap("127.0.0.1:5000")},
		{inode: 6, local: ap("0.0.0.0:6000"), remote: ap(any4)}, // a server on any address
		{inode: 7, local: ap("192.0.2.1:4002"), remote: ap("192.0.2.1:6000")},
		{inode: 0, local: ap("127.0.0.1:4003"), remote: ap("127.0.0.1:53")},   // nobody holds it
		{inode: 8, local: ap("127.0.0.1:4004"), remote: ap("127.0.0.1:4000")}, // sends to one who only hears another
		{inode: 9, local: ap("0.0.0.0:7000"), remote: ap(any4)},
	}
	for inode, want := range map[uint64][]uint64{1: {2, 3}, 2: {1}, 3: {1}, 4: {5}, 5: {4}, 6: {7}, 7: {6}, 8: nil, 9: nil} {
		i := slices.IndexFunc(all, func(s inetSocket) bool { return s.inode == inode })
		remote := all[i].remote
		if remote.Port() == 0 {
			remote = netip.AddrPort{} // as a descriptor has it
		}
		if got := peersOf(all[i].local, remote, all); !slices.Equal(got, want) {
			t.Errorf("peers of socket %d: %v, want %v", inode, got, want)
		}
	}
}

// What is acknowledged was sent, whatever the other counters say.
func TestInfoBytes(t *testing.T) {
	for _, tt := range []struct {
		info tcpInfo
		want host.Bytes
	}{
		{tcpInfo{acked: 1001, sent: 1000, received: 7}, host.Bytes{Sent: 1001, Acknowledged: 1001, Received: 7}},
		{tcpInfo{acked: 1001, sent: 5000, retransmitted: 1000}, host.Bytes{Sent: 4000, Acknowledged: 1001}},
		{tcpInfo{acked: 10, sent: 5, retransmitted: 9}, host.Bytes{Sent: 10, Acknowledged: 10}},
	} {
		if got := tt.info.bytes(); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.info, got, tt.want)
		}
	}
	// What is received in the meantime does not unsettle the direction.
	if (tcpInfo{sent: 1, received: 2}).settled(tcpInfo{sent: 2, received: 2}) || !(tcpInfo{sent: 1, received: 3}).settled(tcpInfo{sent: 1, received: 2}) {
		t.Error("settled")
	}
}
