package flows

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
)

// Protocol numbers of IP that have two ports each.
const (
	TCP  = 6
	UDP  = 17
	SCTP = 132
)

// CommunityID returns the Community ID, version 1, of a flow of a protocol with ports: the same for both directions
// (github.com/corelight/community-id-spec). The seed is 0 unless a site has set another one in all its programs.
func CommunityID(protocol uint8, a, b netip.AddrPort, seed uint16) string {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	text := binary.BigEndian.AppendUint16(nil, seed)
	text = append(text, a.Addr().AsSlice()...)
	text = append(text, b.Addr().AsSlice()...)
	text = append(text, protocol, 0)
	text = binary.BigEndian.AppendUint16(text, a.Port())
	text = binary.BigEndian.AppendUint16(text, b.Port())
	sum := sha1.Sum(text)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// IsCommunityID reports whether a text has the form of a Community ID, version 1.
func IsCommunityID(s string) bool {
	const digits = 28 // of 20 octets, padded
	if len(s) != len("1:")+digits || s[:2] != "1:" {
		return false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s[2:])
	return err == nil && len(b) == sha1.Size
}
