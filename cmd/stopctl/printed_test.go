package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/tokens"
)

// Who reads a token sees where it was asked for later than the connection was seen.
func TestPrintedRecord(t *testing.T) {
	seen := time.Date(2026, 11, 3, 14, 5, 0, 0, time.UTC)
	for later, want := range map[time.Duration]string{
		time.Second:       "2026-11-03T14:05:00.000000Z 192.0.2.1:40022 -> 192.0.2.2:22 192.0.2.1:113 SV stoken\n",
		30 * time.Second:  "2026-11-03T14:05:00.000000Z (asked: 2026-11-03T14:05:30.000000Z) 192.0.2.1:40022 -> 192.0.2.2:22 192.0.2.1:113 SV stoken\n",
		-30 * time.Second: "2026-11-03T14:05:00.000000Z (asked: 2026-11-03T14:04:30.000000Z) 192.0.2.1:40022 -> 192.0.2.2:22 192.0.2.1:113 SV stoken\n",
	} {
		var out strings.Builder
		err := printRecord(&out, tokens.Record{Seen: seen, Asked: seen.Add(later), Source: netip.MustParseAddrPort("192.0.2.1:40022"),
			Destination: netip.MustParseAddrPort("192.0.2.2:22"), Host: netip.MustParseAddrPort("192.0.2.1:113"), Type: stop.SV, Token: "stoken"}, 0, false)
		if d := cmp.Diff(want, out.String()); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
}
