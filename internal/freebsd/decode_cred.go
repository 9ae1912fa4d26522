package freebsd

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Names of sysctl(3) that tell the credentials of the socket of a connection, as identd asks (tcp_getcred in netinet/tcp_subr.c).
const (
	nameCred4 = "net.inet.tcp.getcred"
	nameCred6 = "net.inet6.tcp6.getcred"
)

// struct xucred (sys/ucred.h) begins with its version and the user.
const (
	credRoom    = 256 // more than it has
	credVersion = 0
	credUID     = 4
)

// formatEnds makes the question whose a connection is: two struct sockaddr_in or sockaddr_in6, of this host first.
func formatEnds(local, remote netip.AddrPort) (name string, question []byte) {
	name = nameCred4
	for _, e := range []netip.AddrPort{local, remote} {
		var b []byte
		switch a := e.Addr(); {
		case a.Is4():
			b = make([]byte, 16)
			b[0], b[1] = byte(len(b)), familyInet
			copy(b[4:], a.AsSlice())
		default:
			b = make([]byte, 28)
			b[0], b[1] = byte(len(b)), familyInet6
			copy(b[8:], a.AsSlice())
			name = nameCred6
		}
		binary.BigEndian.PutUint16(b[2:], e.Port())
		question = append(question, b...)
	}
	return name, question
}

// parseCred parses the user out of a struct xucred.
func parseCred(b []byte) (uid uint32, err error) {
	if len(b) < credUID+4 || u32(b, 0) != credVersion {
		return 0, fmt.Errorf("parse credentials: %d octets, or another version", len(b))
	}
	return u32(b, credUID), nil
}
