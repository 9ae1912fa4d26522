// Package flows reads what other programs write of TCP connections: intrusion detection systems, and what a person pastes who
// was shown a connection. It does no input or output.
package flows

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Flow is what a line says of one connection.
type Flow struct {
	// Protocol is "tcp", "udp" or whatever the line calls it, in lower case; empty where it does not say.
	Protocol string
	// Source opened the connection where Directed is set. Else it is the end that the line has first. Addresses have no
	// zone, and those of IPv4 are never mapped into IPv6.
	Source, Destination netip.AddrPort
	Directed            bool
	// FarSource and FarDestination are the ends as the destination's host has them, where the line tells that a gateway translates
	// addresses on the way; else not valid.
	FarSource, FarDestination netip.AddrPort
	// Time is that of the record, zero where it has none.
	Time time.Time
	// Lasted is how long after Time the connection was last seen, zero where the record does not tell: Zeek gives the time at which one began.
	Lasted time.Duration
	// Kind is the event type of Suricata ("alert", "flow"), or the log of Zeek ("conn", "notice"); empty of other lines.
	Kind  string
	Alert Alert
}

// An Alert is what the record accuses the connection of. It is zero where it does not.
type Alert struct {
	Name     string // the signature of Suricata, the notice type of Zeek
	ID       uint64 // the number of the signature, 0 of Zeek
	Category string // of Suricata
	Severity int    // of Suricata, 1 is the worst; 0 where it is not told
}

// ErrNoFlow stands for lines that are in order and tell of no connection with two ports, such as counters and headers.
var ErrNoFlow = errors.New("tells of no connection with ports")

// MaxLine bounds a pasted line in octets.
const MaxLine = 64 << 10

// String gives the ends in the form that [Parse] reads.
func (f Flow) String() string { return f.Source.String() + " -> " + f.Destination.String() }

// TCP reports whether the flow is one of TCP, or may be: hosts are asked about no others.
func (f Flow) TCP() bool { return f.Protocol == "" || f.Protocol == "tcp" }

// Parse reads a line as a person pastes it: of ss(8), netstat(8) or conntrack(8), "a:p -> b:q" as Suricata's fast.log, Snort and
// tcpdump(1) have it, a record of Zeek or one of Suricata's EVE.
func Parse(line string) (Flow, error) {
	f, err := parse(line)
	if err != nil {
		return Flow{}, fmt.Errorf("read connection %.80q: %w", line, err)
	}
	return f, nil
}

func parse(line string) (Flow, error) {
	if len(line) > MaxLine {
		return Flow{}, fmt.Errorf("longer than %d octets", MaxLine)
	}
	line = strings.TrimSpace(line)
	switch {
	case strings.ContainsAny(line, "\r\n"):
		return Flow{}, errors.New("more than one line")
	case strings.HasPrefix(line, "{"):
		if f, err := decodeEVE([]byte(line)); !errors.Is(err, ErrNoFlow) {
			return f, err
		}
		return decodeZeekJSON([]byte(line))
	case strings.Count(line, "\t") >= 5 && !strings.Contains(line, " src="):
		return new(Zeek).Line([]byte(line))
	case strings.Contains(line, "src=") && strings.Contains(line, "sport="):
		return decodeConntrack(line)
	}
	if f, err := decodeArrow(line); !errors.Is(err, errNoArrow) {
		return f, err
	}
	return decodeTable(line)
}

// flow puts what was read together. Ports are 1 to 65535.
func flow(protocol string, source, destination netip.AddrPort) (Flow, error) {
	for _, end := range []netip.AddrPort{source, destination} {
		if !end.IsValid() || end.Port() == 0 || end.Addr().IsUnspecified() {
			return Flow{}, ErrNoFlow
		}
	}
	source, destination = plain(source), plain(destination)
	if source.Addr().Is4() != destination.Addr().Is4() {
		return Flow{}, errors.New("its ends are of two families")
	}
	return Flow{Protocol: strings.ToLower(protocol), Source: source, Destination: destination}, nil
}

func plain(end netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(end.Addr().Unmap().WithZone(""), end.Port())
}
