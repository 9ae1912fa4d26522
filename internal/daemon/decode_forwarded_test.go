package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

var forwardings = []struct {
	name string
	f    Forwarded
	line string // behind the time
}{
	{"leaf", Forwarded{"host.example/stopd/12345678", false, 0, tlog.Hash{0xab, 31: 1}},
		"host.example stopd - leaf - origin=host.example/stopd/12345678 leaf=0 hash=ab00000000000000000000000000000000000000000000000000000000000001"},
	{"checkpoint", Forwarded{"host.example/stopd/12345678", true, 999999999999999999, tlog.Hash{}},
		"host.example stopd - checkpoint - origin=host.example/stopd/12345678 leaves=999999999999999999 root=0000000000000000000000000000000000000000000000000000000000000000"},
}

func TestForwarded(t *testing.T) {
	at := time.Date(2026, 11, 23, 4, 5, 6, 789, time.FixedZone("", 3600))
	for _, c := range forwardings {
		line := c.f.format(at, "host.example")
		if want := "<86>1 2026-11-23T03:05:06.000000Z " + c.line; string(line) != want {
			t.Errorf("%s: %q, want %q", c.name, line, want)
		}
		// As sent, and as rsyslog writes it by default.
		for _, written := range []string{string(line), "Nov 23 04:05:06 host.example stopd " + c.line[len("host.example stopd - "):] + "\n"} {
			got, ok := ParseForwarded([]byte(written))
			if d := cmp.Diff(c.f, got); !ok || d != "" {
				t.Errorf("%s: %t (-want +got):\n%s", written, ok, d)
			}
		}
	}
	for _, name := range []string{"no name", "", strings.Repeat("x", 256)} {
		if line := forwardings[0].f.format(at, name); string(line[len("<86>1 2026-11-23T03:05:06.000000Z "):][:8]) != "- stopd " {
			t.Errorf("a host without a name of RFC 5424: %q", line)
		}
	}
	for _, other := range []string{"", "origin=x leaf=1", "origin=x leaf=1 root=" + zeros, "origin=x leaf=-1 hash=" + zeros, "origin=x leaf=1 hash=" + zeros + "0",
		"origin=x leaf=1234567890123456789 hash=" + zeros, "origin=" + strings.Repeat("x", maxOrigin+1) + " leaf=1 hash=" + zeros} {
		if f, ok := ParseForwarded([]byte(other)); ok {
			t.Errorf("%q is %+v", other, f)
		}
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func FuzzParseForwarded(f *testing.F) {
	for _, c := range forwardings {
		f.Add(c.f.format(time.Unix(0, 0), "h"))
	}
	f.Add([]byte("origin=\xff leaf=1 hash=" + zeros))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, ok := ParseForwarded(line)
		if !ok {
			return
		}
		if b, ok := ParseForwarded(a.format(time.Unix(0, 0), "h")); !ok || a != b {
			t.Errorf("%+v, again %+v", a, b)
		}
	})
}
