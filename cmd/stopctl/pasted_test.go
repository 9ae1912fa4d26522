package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whoever is asked is asked about the connection as it is on its side of a gateway, on behalf of whom it sees there.
func TestPastedRequest(t *testing.T) {
	const (
		plain     = "192.0.2.7:40022 -> 198.51.100.1:22"
		masked    = "tcp 6 431999 ESTABLISHED src=10.0.0.7 dst=198.51.100.1 sport=40022 dport=22 src=198.51.100.1 dst=203.0.113.5 sport=22 dport=61000 [ASSURED]"
		forwarded = "tcp 6 431999 ESTABLISHED src=198.51.100.1 dst=203.0.113.5 sport=40022 dport=80 src=10.0.0.8 dst=198.51.100.1 sport=8080 dport=40022 [ASSURED]"
	)
	for _, tt := range []struct{ name, line, host, local, remote, behalf string }{
		{"who opened it", plain, "192.0.2.7", "40022", "22", "198.51.100.1"},
		{"the other end", plain, "198.51.100.1", "22", "40022", "192.0.2.7"},
		{"mapped", plain, "::ffff:192.0.2.7", "40022", "22", "198.51.100.1"},
		{"behind the gateway", masked, "10.0.0.7", "40022", "22", "198.51.100.1"},
		{"beyond it", masked, "198.51.100.1", "22", "61000", "203.0.113.5"},
		{"behind a forwarded port", forwarded, "10.0.0.8", "8080", "40022", "198.51.100.1"},
		{"the gateway itself", forwarded, "203.0.113.5", "80", "40022", "198.51.100.1"},
		{"nobody", plain, "192.0.2.8", "", "", ""},
	} {
		var behalf, from string
		local, remote, err := pastedRequest(tt.line, netip.MustParseAddr(tt.host), &behalf, &from)
		if d := cmp.Diff([]string{tt.local, tt.remote, tt.behalf, ""}, []string{local, remote, behalf, from}); d != "" || (err != nil) != (tt.local == "") {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, d)
		}
	}
	// Where somebody said for whom or from where, that is so.
	behalf, from := "192.0.2.9", ""
	if _, _, err := pastedRequest(plain, netip.MustParseAddr("192.0.2.7"), &behalf, &from); err != nil || behalf != "192.0.2.9" {
		t.Errorf("on behalf of %s, %v", behalf, err)
	}
}
