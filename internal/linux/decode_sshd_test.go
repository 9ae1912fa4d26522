package linux

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
)

var sameEnd = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestParseAccepted(t *testing.T) {
	const key = "SHA256:QTpSZBTTBYNGfYHpjGMrPlHPzAqFXrHwHbbE0B1jB0U"
	of := func(user, remote, key string) host.Login {
		return host.Login{Source: host.LoginSSHD, User: user, Remote: netip.MustParseAddrPort(remote), Key: key}
	}
	for message, want := range map[string]host.Login{
		"Accepted publickey for mallory from 192.0.2.1 port 40000 ssh2: ED25519 " + key:                                                 of("mallory", "192.0.2.1:40000", key),
		"Accepted publickey for mallory from 2001:db8::1 port 40000 ssh2: RSA-CERT " + key + " ID x (serial 1) CA ED25519 SHA256:other": of("mallory", "[2001:db8::1]:40000", key),
		"Accepted publickey for m from 192.0.2.1 port 1 ssh2: RSA " + key + " ID a from 192.0.2.9 port 9 ssh2: RSA SHA256:x":            of("m", "192.0.2.1:1", key),
		"Accepted publickey for m from 192.0.2.1 port 1 ssh2: RSA MD5:00:11:22":                                                         of("m", "192.0.2.1:1", "MD5:00:11:22"),
		"Accepted publickey for m from ::ffff:192.0.2.1 port 1 ssh2: ECDSA-SK " + key:                                                   of("m", "192.0.2.1:1", key),
		"Accepted password for a b from 192.0.2.1 port 1 ssh2":                                                                          of("a b", "192.0.2.1:1", ""),
		"Accepted keyboard-interactive/pam for m from 192.0.2.1 port 1 ssh2":                                                            of("m", "192.0.2.1:1", ""),
		"Accepted gssapi-with-mic for m from 192.0.2.1 port 1 ssh2: m@EXAMPLE.ORG":                                                      of("m", "192.0.2.1:1", ""),
		"Failed publickey for m from 192.0.2.1 port 1 ssh2: RSA " + key:                                                                 {},
		"Partial publickey for m from 192.0.2.1 port 1 ssh2: RSA " + key:                                                                {},
		" Accepted publickey for m from 192.0.2.1 port 1 ssh2: RSA " + key:                                                              {},
		"Accepted publickey for m from a.example port 1 ssh2: RSA " + key:                                                               {},
		"Accepted publickey for m from 192.0.2.1 port 0 ssh2":                                                                           {},
		"Accepted publickey for m from 192.0.2.1 port 65536 ssh2":                                                                       {},
		"": {},
	} {
		got, ok := parseAccepted(message)
		if d := cmp.Diff(want, got, sameEnd); d != "" || ok != (want != host.Login{}) {
			t.Errorf("%q: %t (-want +got):\n%s", message, ok, d)
		}
	}
}

// journal is what journalctl of systemd 252 prints, of a daemon and of a user with logger(1).
const journal = `{"_TRANSPORT":"syslog","__REALTIME_TIMESTAMP":"1795408186518386","_PID":"14","_UID":"0","MESSAGE":"Accepted publickey for mallory from 192.0.2.1 port 1 ssh2: ED25519 SHA256:x","_BOOT_ID":"8b3e6c916a5d4a079cf41bb678ac2a07"}
{"_TRANSPORT":"syslog","__REALTIME_TIMESTAMP":"1795408186518386","_PID":"14","_UID":"1001","SYSLOG_PID":"14","MESSAGE":"Accepted publickey for mallory from 192.0.2.9 port 1 ssh2: ED25519 SHA256:x"}
{"__REALTIME_TIMESTAMP":"1795408189518386","_SOURCE_REALTIME_TIMESTAMP":"1795408186518386","_PID":"13","_UID":"0","MESSAGE":"Accepted publickey for mallory from 192.0.2.1 port 2 ssh2: ED25519 SHA256:x"}
{"__REALTIME_TIMESTAMP":"1795408186518386","_PID":"15","_UID":"0","MESSAGE":[65,99,255]}
{"__REALTIME_TIMESTAMP":"1795408186518386","_PID":["15","16"],"_UID":"0","MESSAGE":"Accepted publickey for mallory from 192.0.2.8 port 1 ssh2"}
{"__REALTIME_TIMESTAMP":"1795408186518386","_PID":"17","_UID":"0","MESSAGE":"Accepted publickey for mallory fr
`

func TestParseJournal(t *testing.T) {
	of := func(pid int, remote string) host.Login {
		return host.Login{Source: host.LoginSSHD, User: "mallory", Remote: netip.MustParseAddrPort(remote), Key: "SHA256:x", PID: pid,
			Time: time.UnixMicro(1795408186518386).UTC(), Log: host.LogJournal}
	}
	want := []host.Login{of(14, "192.0.2.1:1"), of(13, "192.0.2.1:2")} // the second was read three seconds later
	if d := cmp.Diff(want, parseJournal([]byte(journal)), sameEnd); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(journal))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range parseJournal(b) {
			if l.PID < 0 || l.Log != host.LogJournal || l.Remote.Port() == 0 {
				t.Errorf("%+v", l)
			}
			inRecording(t, l)
		}
	})
}

func TestParseAuthLog(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, zone)
	const message = "Accepted publickey for mallory from 192.0.2.1 port 1 ssh2: ED25519 SHA256:x\n"
	of := func(pid int, at time.Time) host.Login {
		return host.Login{Source: host.LoginSSHD, User: "mallory", Remote: netip.MustParseAddrPort("192.0.2.1:1"), Key: "SHA256:x", PID: pid, Time: at}
	}
	for _, tt := range []struct {
		name, log string
		want      []host.Login
		reaches   time.Time
	}{
		{"empty", "", nil, time.Time{}},
		{"RFC 3164", "Jan  2 11:00:00 b sshd[14]: " + message, []host.Login{of(14, time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC))}, time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC)},
		{"last year", "Dec 31 23:00:00 b sshd-session[14]: " + message, []host.Login{of(14, time.Date(2025, 12, 31, 21, 0, 0, 0, time.UTC))}, time.Date(2025, 12, 31, 21, 0, 0, 0, time.UTC)},
		{"RFC 3339", "2026-01-02T11:00:00.5+02:00 b sshd[14]: " + message, []host.Login{of(14, time.Date(2026, 1, 2, 9, 0, 0, 5e8, time.UTC))}, time.Date(2026, 1, 2, 9, 0, 0, 5e8, time.UTC)},
		{"others' lines", "Jan  2 10:00:00 b sudo: mallory : COMMAND=/bin/echo sshd[14]: " + message + "Jan  2 11:00:00 b sshd: " + message + "Jan  2 11:00:00 b sshd[x]: " + message +
			"Jan  2 11:00:00 b sshd[14]: Failed password\nnonsense\n" + message, nil, time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)},
		{"a message in a message", "Jan  2 11:00:00 b x[15]: y sshd[14]: " + message, nil, time.Date(2026, 1, 2, 9, 0, 0, 0, time.UTC)},
	} {
		got, reaches := parseAuthLog([]byte(tt.log), now)
		if d := cmp.Diff(tt.want, got, sameEnd); d != "" || !reaches.Equal(tt.reaches) {
			t.Errorf("%s: reaches %v (-want +got):\n%s", tt.name, reaches, d)
		}
	}
}

func FuzzParseAuthLog(f *testing.F) {
	f.Add([]byte("Jan  2 11:00:00 b sshd[14]: Accepted publickey for mallory from 192.0.2.1 port 1 ssh2: ED25519 SHA256:x\n"))
	f.Add([]byte("2026-01-02T11:00:00.5+02:00 b sshd[14]: Accepted password for m from fe80::1%eth0 port 1 ssh2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ls, _ := parseAuthLog(b, time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC))
		if len(ls) > strings.Count(string(b), "\n")+1 {
			t.Errorf("%d records", len(ls))
		}
		for _, l := range ls {
			inRecording(t, l)
		}
	})
}
