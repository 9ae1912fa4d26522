package linux

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// accepted is what OpenSSH logs when it lets somebody in (auth.c, auth_log; auth2-pubkey.c): with a certificate
// more follows, which the user may have chosen.
var accepted = regexp.MustCompile(`^Accepted \S+ for (.+?) from (\S+) port (\d+)(?: ssh2)?(?:: [A-Za-z0-9@.-]+ ((?:SHA256|SHA512|MD5):\S+))?`)

// parseAccepted reads a message of sshd. It is false for any other.
func parseAccepted(message string) (host.Login, bool) {
	m := accepted.FindStringSubmatch(message)
	if m == nil {
		return host.Login{}, false
	}
	a := posix.ParseAddress(m[2])
	port, err := strconv.ParseUint(m[3], 10, 16)
	if !a.IsValid() || err != nil || port == 0 {
		return host.Login{}, false
	}
	return host.Login{Source: host.LoginSSHD, User: m[1], Remote: netip.AddrPortFrom(a, uint16(port)), Key: m[4]}, true
}

// parseJournal reads the records of root's processes in which sshd lets somebody in, from what journalctl(1)
// prints with -o json. The process and its user are what journald was told by the kernel, whatever the record itself
// says (systemd.journal-fields(7)), and the time is when the kernel took the message, where journald was told: it may
// have come to read it much later. A line that was cut is left out.
func parseJournal(b []byte) []host.Login {
	var ls []host.Login
	for line := range bytes.Lines(b) {
		var r struct {
			Message  json.RawMessage `json:"MESSAGE"`
			PID      json.RawMessage `json:"_PID"`
			UID      json.RawMessage `json:"_UID"`
			Sent     json.RawMessage `json:"_SOURCE_REALTIME_TIMESTAMP"`
			Received json.RawMessage `json:"__REALTIME_TIMESTAMP"`
		}
		if json.Unmarshal(line, &r) != nil {
			continue
		}
		// A field that a record has several times is a list, and one that is not text a list of octets.
		str := func(m json.RawMessage) (s string) {
			if json.Unmarshal(m, &s) != nil {
				return ""
			}
			return s
		}
		l, ok := parseAccepted(str(r.Message))
		pid, err := strconv.ParseUint(str(r.PID), 10, 31)
		at, err2 := strconv.ParseInt(cmp.Or(str(r.Sent), str(r.Received)), 10, 64)
		if !ok || err != nil || err2 != nil || at <= 0 || at >= 1<<57 || str(r.UID) != "0" {
			continue
		}
		l.PID, l.Time, l.Log = int(pid), time.UnixMicro(at).UTC(), host.LogJournal
		ls = append(ls, l)
	}
	return ls
}

// parseAuthLog reads the same from a file that a syslog daemon writes. Any user can have sent it a line. Times are
// those of RFC 3339, or of RFC 3164, which have neither year nor zone: the zone is now's, and the year that which
// makes them the last before now. Reaches is the time of the first line, zero where there is none.
func parseAuthLog(b []byte, now time.Time) (ls []host.Login, reaches time.Time) {
	for line := range bytes.Lines(b) {
		at, rest, ok := syslogTime(line, now)
		if !ok {
			continue
		}
		if reaches.IsZero() {
			reaches = at
		}
		if !bytes.Contains(rest, []byte("]: Accepted ")) {
			continue
		}
		f := strings.SplitN(strings.TrimRight(text(rest), "\n"), " ", 3) // host, tag, message
		if len(f) != 3 {
			continue
		}
		l, ok := parseAccepted(f[2])
		_, tag, found := strings.Cut(f[1], "[")
		pid, err := strconv.ParseUint(strings.TrimSuffix(tag, "]:"), 10, 31)
		if !ok || !found || err != nil {
			continue
		}
		l.PID, l.Time = int(pid), at
		ls = append(ls, l)
	}
	return ls, reaches
}

// syslogTime reads the time at the beginning of a line of a log.
func syslogTime(line []byte, now time.Time) (at time.Time, rest []byte, ok bool) {
	first, rest, _ := bytes.Cut(line, []byte(" "))
	if at, err := time.Parse(time.RFC3339Nano, string(first)); err == nil && at.Year() >= 1970 {
		return at.UTC(), rest, true
	}
	const layout = "Jan _2 15:04:05"
	if len(line) <= len(layout) || line[len(layout)] != ' ' {
		return time.Time{}, nil, false
	}
	at, err := time.ParseInLocation("2006 "+layout, strconv.Itoa(now.Year())+" "+string(line[:len(layout)]), now.Location())
	if err == nil && at.After(now.Add(time.Minute)) {
		at, err = time.ParseInLocation("2006 "+layout, strconv.Itoa(now.Year()-1)+" "+string(line[:len(layout)]), now.Location())
	}
	return at.UTC(), line[len(layout)+1:], err == nil
}
