package optin

import (
	"net/netip"
	"slices"
	"strings"
)

// A list is whom a user lets have his name: what ~/.ident says.
type list struct {
	Prefixes []netip.Prefix
	Names    []string // of hosts, in lower case, each once
}

// parseList parses ~/.ident: one host name, address or prefix a line, with # before comments. A line that is neither
// lists nobody, and so does a name after MaxNames others.
func parseList(b []byte) (l list) {
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.Trim(line, " \t\r\n")
		if p, ok := parsePrefix(line); ok {
			l.Prefixes = append(l.Prefixes, p)
		} else if name := strings.ToLower(line); hostName(name) && len(l.Names) < MaxNames && !slices.Contains(l.Names, name) {
			l.Names = append(l.Names, name)
		}
	}
	return l
}

// parsePrefix parses an address or a prefix. IPv4 mapped into IPv6 is neither: no address would be in it.
func parsePrefix(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if a, err2 := netip.ParseAddr(s); err2 == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	return p, err == nil && !p.Addr().Is4In6()
}

// hostName reports whether a name in lower case is one that can be looked up (RFC 1123 section 2.1, and underscores). One
// without a letter is an address that does not parse.
func hostName(s string) bool {
	letter := false
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z':
				letter = true
			case '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return letter && len(s) <= 253
}
