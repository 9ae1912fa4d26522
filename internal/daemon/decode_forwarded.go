package daemon

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// A Forwarded is what a log server is told of a store's log: one leaf, or one checkpoint.
type Forwarded struct {
	Origin     string // of the log
	Checkpoint bool
	N          int64     // the leaf's number, or how many leaves the checkpoint covers
	Hash       tlog.Hash // of the leaf, or of the tree
}

// forwardedPriority is that of RFC 5424, section 6.2.1: facility authpriv (10), severity informational (6).
const forwardedPriority = 10*8 + 6

// format is the message for a log server (RFC 5424). What is told is in MSG: what a server keeps of a message is
// often that alone.
func (f Forwarded) format(at time.Time, host string) []byte {
	if len(host) > 255 || !hostName.MatchString(host) {
		host = "-"
	}
	id, n, h := "leaf", "leaf", "hash"
	if f.Checkpoint {
		id, n, h = "checkpoint", "leaves", "root"
	}
	return fmt.Appendf(nil, "<%d>1 %s %s stopd - %s - origin=%s %s=%d %s=%x", forwardedPriority,
		at.UTC().Format("2006-01-02T15:04:05.000000Z"), host, id, f.Origin, n, f.N, h, f.Hash[:])
}

// hostName is what RFC 5424 has for HOSTNAME, at most 255 octets.
var hostName = regexp.MustCompile(`^[!-~]+$`)

// Bounds such as {1,512} here would cost every process of the daemon a millisecond at its start.
var forwardedText = regexp.MustCompile(`\borigin=(\S+) (?:leaf=(\d{1,18}) hash|leaves=(\d{1,18}) root)=([0-9a-f]{64})\b`)

const maxOrigin = 512

// ParseForwarded finds what a log server was told in a line of its files, whatever it has put before it. Other lines
// give false.
func ParseForwarded(line []byte) (f Forwarded, ok bool) {
	m := forwardedText.FindSubmatch(line)
	if m == nil || len(m[1]) > maxOrigin {
		return f, false
	}
	f.Origin, f.Checkpoint = string(m[1]), m[2] == nil
	n := m[2]
	if f.Checkpoint {
		n = m[3]
	}
	f.N, _ = strconv.ParseInt(string(n), 10, 64) // 18 digits fit
	hex.Decode(f.Hash[:], m[4])                  // 64 digits
	return f, true
}
