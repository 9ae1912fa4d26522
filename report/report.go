package report

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// Version is the version of reports that this package writes.
const Version = 1

// Kinds of reports.
const (
	KindSV        = "sv"        // the whole report
	KindID        = "id"        // who owns the socket, and with ID_REC the previous hosts
	KindDuplicate = "duplicate" // a repeated request; SameAs names the first token
	KindNone      = "none"      // a decoy: nothing to save; Reason says why
)

// A Report is what one answered request saves.
type Report struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	// Salt is 64 hexadecimal digits (256 random bits), so that nobody can confirm a guessed report
	// against a token.
	Salt       string          `json:"salt"`
	Tool       Tool            `json:"tool"`
	Host       host.Facts      `json:"host"`
	Request    Request         `json:"request"`
	Connection *Connection     `json:"connection"`
	Processes  []trace.Process `json:"processes"`
	Channels   []trace.Channel `json:"channels"`
	// Previous are candidates; which of them were asked is in the trace-back records.
	Previous []trace.Previous `json:"previous"`
	Users    []trace.User     `json:"users"`
	Gaps     []host.Gap       `json:"gaps"`
	// Reason and SameAs are set in small reports (decoys, duplicates).
	Reason string `json:"reason"`
	SameAs string `json:"same_as"`
	// Forwarded is the connection where the host passes it on for another machine; nil where it does not.
	Forwarded *host.Forwarded `json:"forwarded"`

	margins margins
}

// A Tool is what wrote the report, and from which sources.
type Tool struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Sources []string `json:"sources"`
	// GroupsOff names what policy left out.
	GroupsOff []string `json:"groups_off"`
}

// A Request is what was asked.
type Request struct {
	Time      time.Time      `json:"time"`
	Type      string         `json:"type"`
	SID       string         `json:"sid"` // decimal; empty where there is none
	Local     netip.AddrPort `json:"local"`
	Remote    netip.AddrPort `json:"remote"`
	Requester netip.Addr     `json:"requester"`
	OnBehalf  bool           `json:"on_behalf"`
	// Checkpoint is the digest of the host's last signed checkpoint: the report is not older.
	Checkpoint string `json:"checkpoint"`
}

// A Connection is the asked connection as the host knows it.
type Connection struct {
	Protocol        host.Kind      `json:"protocol"`
	State           string         `json:"state"`
	Direction       host.Direction `json:"direction"`
	DirectionSource host.Source    `json:"direction_source"`
	UID             uint32         `json:"uid"`
	User            string         `json:"user"`
	Inode           uint64         `json:"inode" report:"null"`
	Object          host.Object    `json:"object"`
	Cookie          uint64         `json:"cookie" report:"null"`
	NetNS           uint64         `json:"netns" report:"null"`
	Opened          time.Time      `json:"opened"`
	Closed          time.Time      `json:"closed"`
	// Owners are the processes that hold the socket; nil where nobody looked for them.
	Owners []int `json:"owners" report:"null"`
	NAT    *NAT  `json:"nat"`
	// Bytes is zero where the system does not count.
	Bytes host.Bytes `json:"bytes" report:"null"`
}

// A NAT is how the host's own connection tracking translates the connection.
type NAT struct {
	Original   *host.Ends `json:"original"`   // as the process has them
	Translated *host.Ends `json:"translated"` // as they were asked about
}

// Encode writes the canonical bytes of a report.
func Encode(r Report) []byte {
	e := encoder{margins: r.margins}
	e.value("", r)
	return e.b
}

// Decode reads a report. Bytes that are not canonical are refused, since their hash would not be the token
// of what they say. On failure the report is zero.
func Decode(b []byte) (Report, error) {
	var r Report
	d := newDecoder()
	if err := d.decode(b, &r); err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	if r.Version != Version {
		return Report{}, fmt.Errorf("read report: version %d is not known", r.Version)
	}
	r.margins = d.margins
	if again := Encode(r); string(again) != string(b) {
		return Report{}, fmt.Errorf("read report: %w", errNotCanonical)
	}
	return r, nil
}
