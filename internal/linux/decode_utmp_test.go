package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

// utmp makes a struct utmp as x86 has it.
func utmp(typ uint16, line, user, from string, sec, usec uint32, addr string) []byte {
	b := make([]byte, utmp32.size)
	copy(b, nativeUint16(typ))
	copy(b[4:], nativeUint32(77))
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
	login := host.Login{Source: host.LoginUtmp, PID: 77, Line: "pts/0", User: "alice", Host: "a.example", Time: at, Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 0)}
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
		{"an address for a name", utmp(7, "pts/0", "alice", "2001:db8::1", 1700000000, 5, ""),
			[]host.Login{with(func(l *host.Login) { l.Host, l.Remote = "2001:db8::1", netip.AddrPortFrom(netip.AddrFrom16(v6), 0) })}},
		{"a mapped one", utmp(7, "pts/0", "alice", "::ffff:192.0.2.7", 1700000000, 5, ""),
			[]host.Login{with(func(l *host.Login) {
				l.Host, l.Remote = "::ffff:192.0.2.7", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0)
			})}},
		{"what a multiplexer writes", utmp(7, "pts/0", "alice", ":pts/3:S.0", 1700000000, 5, ""),
			[]host.Login{with(func(l *host.Login) { l.Host, l.Remote = ":pts/3:S.0", netip.AddrPort{} })}},
		{"full fields", utmp(7, full(32), full(32), full(256), 1700000000, 5, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.Line, l.User, l.Host = full(32), full(32), full(256) })}},
		{"not UTF-8", utmp(7, "pts/0", "\xff", "a\nb", 1700000000, 5, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.User, l.Host = `\xff`, "a\nb" })}},
		{"other records", file(utmp(2, "~", "reboot", "6.18", 1, 0, ""), whole, utmp(8, "pts/1", "", "", 2, 0, "")), []host.Login{login}},
		{"truncated tail", append(file(whole), whole[:utmp32.size-1]...), []host.Login{login}},
		{"only a part", whole[:utmp32.size-1], nil},
		{"microseconds that are none", utmp(7, "pts/0", "alice", "a.example", 1700000000, 1<<32-1, "\xc0\x00\x02\x01"),
			[]host.Login{with(func(l *host.Login) { l.Time = time.Unix(1700000000, (1<<32-1)*1000).UTC() })}},
	} {
		if diff := cmp.Diff(tc.want, parseUtmp(tc.b, utmp32), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func FuzzParseUtmp(f *testing.F) {
	f.Add(utmp(7, "pts/0", "alice", "a.example", 1, 2, "\xc0\x00\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ls := parseUtmp(b, utmp32)
		if len(ls) > len(b)/utmp32.size {
			t.Errorf("%d logins in %d octets", len(ls), len(b))
		}
		// Records are read one by one.
		var each []host.Login
		for ; len(b) >= utmp32.size; b = b[utmp32.size:] {
			each = append(each, parseUtmp(b[:utmp32.size], utmp32)...)
		}
		if diff := cmp.Diff(each, ls, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	})
}

// On arm64 the times have 64 bits, and what follows them lies further back.
func TestUtmp64(t *testing.T) {
	b := make([]byte, utmp64.size)
	copy(b, nativeUint16(7))
	copy(b[4:], nativeUint32(77))
	copy(b[8:40], "pts/0")
	copy(b[44:76], "alice")
	binary.NativeEndian.PutUint64(b[344:], 1700000000)
	binary.NativeEndian.PutUint64(b[352:], 5)
	copy(b[360:], "\xc0\x00\x02\x01")
	want := []host.Login{{Source: host.LoginUtmp, PID: 77, Line: "pts/0", User: "alice", Time: time.Unix(1700000000, 5000).UTC(),
		Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 0)}}
	got := append(parseUtmp(slices.Concat(b, b), utmpLayoutOf("arm64")), parseUtmp(b[:utmp32.size], utmp64)...)
	if d := cmp.Diff(append(want, want...), got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseWtmp(t *testing.T) {
	begin := func(line string, sec uint32) []byte { return utmp(7, line, "alice", "a.example", sec, 0, "") }
	end := func(line string, sec uint32) []byte { return utmp(8, line, "", "", sec, 0, "") }
	boot := utmp(2, "~", "reboot", "6.18", 1000, 0, "")
	for _, tt := range []struct {
		name    string
		records [][]byte
		want    []string
		reaches bool
	}{
		{"empty", nil, nil, false},
		{"one that ended", [][]byte{begin("pts/0", 2000), end("pts/0", 2100)}, []string{"pts/0 2000 2100"}, false},
		{"one that is open", [][]byte{begin("pts/0", 2000)}, nil, false},
		{"two of one line, the second open", [][]byte{begin("pts/0", 2000), begin("pts/0", 2100)}, []string{"pts/0 2000 2100"}, false},
		{"between each other", [][]byte{begin("pts/0", 2000), begin("pts/1", 2010), end("pts/0", 2020), end("pts/1", 2030)}, []string{"pts/0 2000 2020", "pts/1 2010 2030"}, false},
		{"before the host began", [][]byte{begin("pts/0", 500), boot, end("pts/0", 2100)}, nil, true},
		{"before the host began, by the time", [][]byte{begin("pts/0", 500), end("pts/0", 2100), begin("pts/0", 2200), end("pts/0", 2300)}, []string{"pts/0 2200 2300"}, true},
		{"an end without a beginning", [][]byte{end("pts/0", 2000)}, nil, false},
		{"an end before the beginning", [][]byte{begin("pts/0", 2000), end("pts/0", 1900)}, nil, false},
	} {
		ls, reaches := parseWtmp(slices.Concat(tt.records...), utmp32, time.Unix(900, 0))
		var got []string
		for _, l := range ls {
			got = append(got, fmt.Sprint(l.Line, " ", l.Time.Unix(), " ", l.Ended.Unix()))
		}
		if d := cmp.Diff(tt.want, got); d != "" || reaches != tt.reaches {
			t.Errorf("%s: reaches %t (-want +got):\n%s", tt.name, reaches, d)
		}
	}
}

func FuzzParseWtmp(f *testing.F) {
	f.Add(slices.Concat(utmp(7, "pts/0", "alice", "a.example", 2000, 2, ""), utmp(8, "pts/0", "", "", 2100, 0, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, y := range []utmpLayout{utmp32, utmp64} {
			ls, _ := parseWtmp(b, y, time.Unix(900, 0))
			for _, l := range ls {
				if l.Ended.Before(l.Time) || l.Time.Before(time.Unix(900, 0)) {
					t.Errorf("%+v", l)
				}
			}
		}
	})
}
