package stop

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Type says what a request asks for (thesis table 3.1). The zero Type is ID.
type Type uint8

// The request types. ID saves who holds the connection, SV the whole report; the _REC types also ask the
// previous hosts.
const (
	ID Type = iota
	IDRec
	SV
	SVRec
)

var typeWords = [...]string{ID: "ID", IDRec: "ID_REC", SV: "SV", SVRec: "SV_REC"}

// String returns the word of the wire: ID, ID_REC, SV or SV_REC.
func (t Type) String() string {
	if int(t) < len(typeWords) {
		return typeWords[t]
	}
	return "Type(" + strconv.Itoa(int(t)) + ")"
}

// Recursive reports whether previous hosts are asked in turn, so whether a request carries a SID.
func (t Type) Recursive() bool { return t == IDRec || t == SVRec }

// Full reports whether the whole report is saved.
func (t Type) Full() bool { return t == SV || t == SVRec }

// ParseType parses one of the four words, in any case.
func ParseType(s string) (Type, error) {
	for t, word := range typeWords {
		if upper(s) == word {
			return Type(t), nil
		}
	}
	return 0, fmt.Errorf("parse type %q: none of ID, ID_REC, SV, SV_REC", s)
}

// MaxLine bounds a request line in octets, its line ending not counted (RFC 1413, Notes on Syntax, 2).
const MaxLine = 1000

// A Request asks one host about one of its TCP connections.
type Request struct {
	// Local is the port on the asked host, Remote the one on the other host. Both are as written, up to
	// ten digits, since a line with ports out of range still has a reply: see PortsValid.
	Local, Remote uint64
	Type          Type
	// SID is the session identifier that ends loops (thesis section 3.2.2), 0 unless Type is recursive.
	SID uint64
	// For is the address of the connection's remote end, where somebody asks on behalf of that host.
	// Where it is not valid, the remote end is the address that the request comes from. It has no zone
	// and is not IPv4 mapped into IPv6.
	For netip.Addr
}

// PortsValid reports whether both ports are 1 to 65535.
func (r Request) PortsValid() bool {
	return 1 <= r.Local && r.Local <= 65535 && 1 <= r.Remote && r.Remote <= 65535
}

// String returns the canonical line without its line ending, which [ParseRequest] turns into the same
// Request: "968 , 23 : SV_REC : 92847523456 : 192.0.2.7". An ID request without For is in the form of
// RFC 1413, "968 , 23", which every ident daemon understands.
func (r Request) String() string {
	line := formatPorts(r.Local, r.Remote)
	if r.Type != ID || r.For.IsValid() {
		line += " : " + r.Type.String()
	}
	if r.Type.Recursive() {
		line += " : " + strconv.FormatUint(r.SID, 10)
	}
	switch {
	case r.For.Is4():
		line += " : " + r.For.String()
	case r.For.IsValid():
		line += " : [" + r.For.String() + "]"
	}
	return line
}

func formatPorts(local, remote uint64) string {
	return strconv.FormatUint(local, 10) + " , " + strconv.FormatUint(remote, 10)
}

// ParseRequest parses one request line, without its line ending. Blanks and tabs around tokens are
// ignored, as RFC 1413 allows; signs, leading zeros, trailing text and octets that are not printable ASCII
// are refused. A port out of range is not an error of syntax: see [Request.PortsValid]. On failure the
// Request is zero and the error is a [*SyntaxError].
func ParseRequest(line []byte) (Request, error) {
	r, err := parseRequest(string(line))
	if err != nil {
		return Request{}, syntaxError("request", string(line), MaxLine, err)
	}
	return r, nil
}

func parseRequest(line string) (r Request, err error) {
	if len(line) > MaxLine {
		return r, fmt.Errorf("longer than %d octets", MaxLine)
	}
	for i := range len(line) {
		if c := line[i]; c != '\t' && (c < ' ' || c > '~') {
			return r, fmt.Errorf("octet 0x%02x at %d", c, i)
		}
	}
	ports, rest, more := cut(line, ":")
	if r.Local, r.Remote, err = parsePorts(ports); err != nil || !more {
		return r, err
	}
	word, rest, more := cut(rest, ":")
	if r.Type, err = ParseType(word); err != nil {
		return r, errors.New("type is none of ID, ID_REC, SV, SV_REC")
	}
	if r.Type.Recursive() {
		if !more {
			return r, fmt.Errorf("%s without a session identifier", r.Type)
		}
		var sid string
		sid, rest, more = cut(rest, ":")
		if r.SID, err = parseDecimal(sid); err != nil {
			return r, fmt.Errorf("session identifier: %w", err)
		}
	}
	if more {
		r.For, err = parseFor(strings.Trim(rest, blanks))
	}
	return r, err
}

// parseFor parses the address of the remote end: a dotted quad (thesis figure 3.1), or an IPv6 address in
// brackets. An IPv4 address mapped into IPv6 is refused, since one remote end would then have two names,
// and two requests for one connection would not be seen as duplicates.
func parseFor(s string) (netip.Addr, error) {
	inner, bracket := strings.CutPrefix(s, "[")
	if bracket {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return netip.Addr{}, errors.New("address without its closing bracket")
		}
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil:
		return netip.Addr{}, errors.New("neither an IPv4 address nor an IPv6 address in brackets")
	case bracket != addr.Is6():
		return netip.Addr{}, errors.New("brackets belong around IPv6 addresses alone")
	case addr.Is4In6():
		return netip.Addr{}, errors.New("IPv4 address mapped into IPv6")
	case addr.Zone() != "":
		return netip.Addr{}, errors.New("address with a zone")
	}
	return addr, nil
}
