package linux

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Kinds of records in utmp and wtmp (utmp(5)).
const (
	bootTimeRecord = 2
	userProcess    = 7
	deadProcess    = 8
)

// A utmpLayout is where struct utmp has what differs between architectures (glibc bits/utmp.h).
type utmpLayout struct {
	size, sec, usec, addr int
	wide                  bool // times have 64 bits
}

var (
	// utmp32 is that of x86, and of most others for the sake of programs with 32 bits.
	utmp32 = utmpLayout{size: 384, sec: 340, usec: 344, addr: 348}
	// utmp64 is that of arm64, which had none: there glibc's __WORDSIZE_TIME64_COMPAT32 is 0.
	utmp64 = utmpLayout{size: 400, sec: 344, usec: 352, addr: 360, wide: true}
)

func utmpLayoutOf(arch string) utmpLayout {
	if arch == "arm64" {
		return utmp64
	}
	return utmp32
}

// A utmpRecord is one record. Strings fill their fields and need not end in NUL.
type utmpRecord struct {
	kind             uint16
	pid              int
	line, user, host string
	at               time.Time
	addr             netip.Addr
}

// parse reads one record, which has the layout's size.
func (y utmpLayout) parse(b []byte) utmpRecord {
	str := func(from, to int) string {
		s, _, _ := bytes.Cut(b[from:to], []byte{0})
		return text(s)
	}
	number := func(at int) int64 {
		if y.wide {
			return int64(binary.NativeEndian.Uint64(b[at:]))
		}
		return int64(binary.NativeEndian.Uint32(b[at:]))
	}
	r := utmpRecord{
		kind: binary.NativeEndian.Uint16(b), pid: int(int32(binary.NativeEndian.Uint32(b[4:]))),
		line: str(8, 40), user: str(44, 76), host: str(76, 332),
		at: time.Unix(number(y.sec), number(y.usec)*1000).UTC(), addr: utmpAddr([16]byte(b[y.addr : y.addr+16])),
	}
	if year := r.at.Year(); year < 1970 || year > 9999 { // no report can have it
		r.at = time.Time{}
	}
	if !r.addr.IsValid() {
		r.addr = posix.ParseAddress(r.host)
	}
	return r
}

func (r utmpRecord) login() host.Login {
	l := host.Login{Source: host.LoginUtmp, Line: r.line, User: r.user, Host: r.host, Time: r.at, PID: r.pid}
	if r.addr.IsValid() {
		l.Remote = netip.AddrPortFrom(r.addr, 0)
	}
	return l
}

// parseUtmp returns the logins of a utmp file. An incomplete record at the end, which is just being written, is
// left out.
func parseUtmp(b []byte, y utmpLayout) []host.Login {
	var ls []host.Login
	for ; len(b) >= y.size; b = b[y.size:] {
		if r := y.parse(b); r.kind == userProcess {
			ls = append(ls, r.login())
		}
	}
	return ls
}

// parseWtmp returns the sessions in a wtmp file that have ended, as far as they began after the host did. A
// session ends with the next record of its line. What is still open is in utmp. Reaches is whether the records go
// back to when the host began.
func parseWtmp(b []byte, y utmpLayout, boot time.Time) (ls []host.Login, reaches bool) {
	open := map[string]int{} // the session of each line
	for ; len(b) >= y.size; b = b[y.size:] {
		r := y.parse(b)
		if r.kind == bootTimeRecord || r.at.Before(boot) {
			ls, reaches = nil, true
			clear(open)
			continue
		}
		if r.kind != userProcess && r.kind != deadProcess {
			continue
		}
		if i, ok := open[r.line]; ok && !r.at.Before(ls[i].Time) {
			ls[i].Ended = r.at
		}
		delete(open, r.line)
		if r.kind == userProcess {
			open[r.line] = len(ls)
			ls = append(ls, r.login())
		}
	}
	return slices.DeleteFunc(ls, func(l host.Login) bool { return l.Ended.IsZero() }), reaches
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
