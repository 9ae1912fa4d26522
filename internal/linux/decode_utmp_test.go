package linux

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// utmp makes a struct utmp.
func utmp(typ uint16, line, user, from string, sec, usec uint32, addr string) []byte {
	b := make([]byte, utmpSize)
	copy(b, nativeUint16(typ))
	copy(b[8:40], line)
	copy(b[44:76], user)
	copy(b[76:332], from)
	copy(b[340:], nativeUint32(sec))
	copy(b[344:], nativeUint32(usec))
	copy(b[348:364], addr)
	return b
}

func TestParseUtmp(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1").As16()
	mapped := netip.MustParseAddr("::ffff:192.0.2.7").As16()
	full := func(n int) string { return strings.Repeat("x", n) }
	file := func(records ...[]byte) []byte {
		var b []byte
		for _, r := range records {
			b = append(b, r...)
		}
		return b
	}
	at := time.Unix(1700000000, 5000).UTC()
	whole := utmp(7, "pts/0", "alice", "a.example", 1700000000, 5, "\xc0\x00\x02\x01")
	login := host.Login{Source: host.LoginUtmp, Line: "pts/0", User: "alice", Host: "a.example", Time: at, Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 0)}
	with := func(change func(*host.Login)) host.Login {
		l := login
		change(&l)
		return l
	}
	for _, tc := range []struct {
		name string
		b    []byte
		want []host.Login
	}{
		{"empty", nil, nil},
		{"IPv4", whole, []host.Login{login}},
		{"IPv6", utmp(7, "pts/0", "alice", "a.example", 1700000000, 5, string(v6[:])),
			[]host.Login{with(func(l *host.Login) { l.Remote = netip.AddrPortFrom(netip.AddrFrom16(v6), 0) })}},
		{"mapped", utmp(7, "pts/0", "alice", "a.example", 1700000000, 5, string(mapped[:])),
			[]host.Login{with(func(l *host.Login) { l.Remote = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0) })}},
		{"console", utmp(7, "tty1", "alice", "", 1700000000, 5, ""),
			[]host.Login{with(func(l *host.Login) { l.Line, l.Host, l.Remote = "tty1", "", netip.AddrPort{} })}},
		{"full fields", utmp(7, full(32), full(32), full(256), 1700000000, 5, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.Line, l.User, l.Host = full(32), full(32), full(256) })}},
		{"not UTF-8", utmp(7, "pts/0", "\xff", "a\nb", 1700000000, 5, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.User, l.Host = `\xff`, "a\nb" })}},
		{"other records", file(utmp(2, "~", "reboot", "6.18", 1, 0, ""), whole, utmp(8, "pts/1", "", "", 2, 0, "")), []host.Login{login}},
		{"truncated tail", append(file(whole), whole[:utmpSize-1]...), []host.Login{login}},
		{"only a part", whole[:utmpSize-1], nil},
		{"microseconds that are none", utmp(7, "pts/0", "alice", "a.example", 1700000000, 1<<32-1, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.Time = time.Unix(1700000000, (1<<32-1)*1000).UTC() })}},
	} {
		if diff := cmp.Diff(tc.want, parseUtmp(tc.b), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func FuzzParseUtmp(f *testing.F) {
	f.Add(utmp(7, "pts/0", "alice", "a.example", 1, 2, "\xc0\x00\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ls := parseUtmp(b)
		if len(ls) > len(b)/utmpSize {
			t.Errorf("%d logins in %d octets", len(ls), len(b))
		}
		// Records are read one by one.
		var each []host.Login
		for ; len(b) >= utmpSize; b = b[utmpSize:] {
			each = append(each, parseUtmp(b[:utmpSize])...)
		}
		if diff := cmp.Diff(each, ls, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	})
}
