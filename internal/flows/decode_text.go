package flows

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// decodeConntrack reads a line of conntrack -L or -E, or of /proc/net/nf_conntrack. Its first tuple is the connection as who
// opened it sees it, the second what comes back: before and beyond any translation of addresses.
func decodeConntrack(line string) (Flow, error) {
	protocol := ""
	values := map[string][]string{}
	for _, word := range strings.Fields(line) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case ok:
			values[key] = append(values[key], value)
		case protocol == "" && slices.Contains(transports, word):
			protocol = word
		}
	}
	// tuple reads the first tuple or the second.
	tuple := func(n int) (Flow, error) {
		var ends [2]netip.AddrPort
		for i, keys := range [][2]string{{"src", "sport"}, {"dst", "dport"}} {
			if len(values[keys[0]]) <= n || len(values[keys[1]]) <= n {
				return Flow{}, fmt.Errorf("no %s or no %s", keys[0], keys[1])
			}
			port, err := number(values[keys[1]][n])
			if err != nil {
				return Flow{}, fmt.Errorf("%s: %w", keys[1], err)
			}
			if ends[i], err = end(values[keys[0]][n], port); err != nil {
				return Flow{}, err
			}
		}
		return flow(protocol, ends[0], ends[1])
	}
	f, err := tuple(0)
	if err != nil {
		return Flow{}, err
	}
	f.Directed = true
	if back, err := tuple(1); err == nil && (back.Destination != f.Source || back.Source != f.Destination) {
		f.FarSource, f.FarDestination = back.Destination, back.Source
	}
	return f, nil
}

var transports = []string{"tcp", "udp", "udplite", "sctp", "dccp"}

var errNoArrow = errors.New("no arrow")

// arrows stand between two ends, and say which of them sent.
var arrows = map[string]bool{"->": true, "→": true, "-->": true, "=>": true, ">": true, "<-": false, "←": false, "<--": false, "<": false}

// decodeArrow reads "a:p -> b:q" wherever it stands in a line, as in Suricata's fast.log ("{TCP} a:p -> b:q") and in lines of
// tcpdump(1) ("IP a.p > b.q: Flags"). An arrow without blanks around it is one as well. It says in which direction a packet went,
// not who opened the connection.
func decodeArrow(line string) (Flow, error) {
	for _, arrow := range []string{"-->", "->", "→", "<--", "<-", "←", "=>"} {
		if before, after, ok := strings.Cut(line, arrow); ok {
			line = before + " " + arrow + " " + after
			break
		}
	}
	words := strings.Fields(line)
	at := slices.IndexFunc(words, func(w string) bool { _, ok := arrows[w]; return ok })
	if at < 1 || at == len(words)-1 {
		return Flow{}, errNoArrow
	}
	left, err := endpoint(words[at-1], false)
	if err != nil {
		return Flow{}, err
	}
	right, err := endpoint(strings.TrimRight(words[at+1], ":,;."), false)
	if err != nil {
		return Flow{}, err
	}
	if !arrows[words[at]] {
		left, right = right, left
	}
	f, err := flow(strings.ToLower(inBraces(words[:at])), left, right)
	if err != nil {
		return Flow{}, err
	}
	if m := fastAlert.FindStringSubmatch(line); m != nil {
		f.Kind = "alert"
		f.Alert.ID, _ = strconv.ParseUint(m[1], 10, 64) // digits; one too long is 2^64-1 and nobody's
		f.Alert.Name = m[2]
	}
	return f, nil
}

// fastAlert is the alert of a line of fast.log: "[**] [1:2018358:10] name [**]".
var fastAlert = regexp.MustCompile(`\[\*\*\] \[\d+:(\d+):\d+\] (.*) \[\*\*\]`)

// inBraces is the protocol as fast.log has it.
func inBraces(words []string) string {
	for _, w := range words {
		if strings.HasPrefix(w, "{") && strings.HasSuffix(w, "}") {
			return w[1 : len(w)-1]
		}
	}
	return ""
}

// decodeTable reads a line of ss(8) or of netstat(8) of any system: its first two words that are an address with a port are the
// local end and the remote one. Names of services are not looked up: the tables are to be made with -n.
func decodeTable(line string) (Flow, error) {
	words := strings.Fields(line)
	protocol, colons := "", false
	if len(words) > 0 {
		w := strings.ToLower(words[0])
		for _, p := range transports {
			if w == p || w == p+"4" || w == p+"6" || w == p+"46" {
				protocol = p
			}
		}
		colons = strings.HasSuffix(w, "6") // netstat of Linux writes 2001:db8::1:22
	}
	var ends []netip.AddrPort
	full, wide := false, false // the column of an address
	for _, w := range words {
		if e, err := endpoint(w, colons); err == nil {
			ends = append(ends, e)
			over := beyond(w, colons)
			full, wide = full || over == 0, wide || over > 0
		}
	}
	switch {
	case full && !wide:
		return Flow{}, errors.New("an address may be cut where its column ends: netstat writes it whole with -W")
	case len(ends) < 2 && strings.Contains(line, "LISTEN"):
		return Flow{}, errors.New("a listening socket, not a connection")
	case len(ends) < 2:
		return Flow{}, errors.New("it has no two addresses with ports (ss and netstat write them with -n)")
	}
	return flow(protocol, ends[0], ends[1])
}

// beyond is by how many characters an address of IPv6 is longer than netstat leaves it without -W: what is cut can be another's address. That of
// Linux (net-tools) leaves 22 of address and port, those of the BSDs 16 of the address.
func beyond(word string, colons bool) int {
	if strings.Count(word, ":") < 2 || word[0] == '[' {
		return -1
	}
	if colons && !strings.ContainsRune(word[strings.LastIndexByte(word, ':'):], '.') {
		return len(word) - 1 - 22
	}
	return strings.LastIndexByte(word, '.') - 16
}

// endpoint reads one end: "192.0.2.7:22", "[2001:db8::7]:22" with or without a zone, "192.0.2.7.22" as BSD and tcpdump write it, and
// "2001:db8::7.22". Where colons is set the last of an address of IPv6 without brackets is before the port.
func endpoint(word string, colons bool) (netip.AddrPort, error) {
	fail := fmt.Errorf("%q is not an address with a port", word)
	if len(word) > 100 {
		return netip.AddrPort{}, fmt.Errorf("%.100q is not an address with a port", word)
	}
	// ss writes the device after an address of IPv4 as well: 192.0.2.7%eth0:22.
	if i := strings.IndexByte(word, '%'); i > 0 {
		if j := strings.LastIndexAny(word, "]:."); j > i {
			if k := strings.IndexByte(word[i:], ']'); k >= 0 {
				j = i + k
			}
			word = word[:i] + word[j:]
		}
	}
	if e, err := netip.ParseAddrPort(word); err == nil && e.Port() != 0 {
		return plain(e), nil
	}
	for _, separator := range []string{".", ":"} {
		i := strings.LastIndex(word, separator)
		if i < 0 || separator == ":" && !colons {
			continue
		}
		a, err := netip.ParseAddr(word[:i])
		if err != nil || separator == ":" && a.Is4() {
			continue
		}
		if p, err := number(word[i+1:]); err == nil && p != 0 {
			return plain(netip.AddrPortFrom(a, p)), nil
		}
	}
	return netip.AddrPort{}, fail
}
