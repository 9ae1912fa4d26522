package linux

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
)

// Offsets in struct utmp (glibc bits/utmp.h; the same on every 64-bit architecture, utmp(5)).
const (
	utmpSize    = 384
	userProcess = 7
)

// parseUtmp returns the logins of a utmp file. Strings fill their fields and need not end in NUL. An
// incomplete record at the end, which is just being written, is left out.
func parseUtmp(b []byte) []host.Login {
	var ls []host.Login
	for ; len(b) >= utmpSize; b = b[utmpSize:] {
		if binary.NativeEndian.Uint16(b) != userProcess {
			continue
		}
		str := func(from, to int) string {
			s, _, _ := bytes.Cut(b[from:to], []byte{0})
			return text(s)
		}
		l := host.Login{
			Source: host.LoginUtmp,
			Line:   str(8, 40), User: str(44, 76), Host: str(76, 332),
			Time: time.Unix(int64(binary.NativeEndian.Uint32(b[340:])), int64(binary.NativeEndian.Uint32(b[344:]))*1000).UTC(),
		}
		if a := utmpAddr([16]byte(b[348:364])); a.IsValid() {
			l.Remote = netip.AddrPortFrom(a, 0)
		}
		ls = append(ls, l)
	}
	return ls
}

// utmpAddr reads ut_addr_v6, which holds an IPv4 address in its first four bytes, the rest zero.
func utmpAddr(b [16]byte) netip.Addr {
	if b == [16]byte{} {
		return netip.Addr{}
	}
	if bytes.Equal(b[4:], make([]byte, 12)) {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b).Unmap()
}
