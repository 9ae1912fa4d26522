package watch

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/conntrack"
	"github.com/stopd/stopd/internal/settings"
)

// Each end is asked about the connection as it is on its side, when it has a socket.
func TestTracked(t *testing.T) {
	at := netip.MustParseAddrPort
	c := Defaults()
	c.Hosts = []settings.Network{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	c.Rules = []Rule{{Ask: AskBoth, Type: "SV"}}
	tuple := func(src, dst string) conntrack.Tuple { return conntrack.Tuple{Src: at(src), Dst: at(dst)} }
	plain := conntrack.Entry{Original: tuple("192.0.2.1:40022", "10.0.0.1:22"), Reply: tuple("10.0.0.1:22", "192.0.2.1:40022"), State: "ESTABLISHED"}
	masked := conntrack.Entry{Original: tuple("10.0.0.7:40022", "198.51.100.1:22"), Reply: tuple("198.51.100.1:22", "203.0.113.1:61000"), State: "ESTABLISHED"}
	forwarded := conntrack.Entry{Original: tuple("198.51.100.1:40022", "203.0.113.1:80"), Reply: tuple("10.0.0.8:8080", "198.51.100.1:40022"), State: "ESTABLISHED"}
	opening := plain
	opening.State = "SYN-SENT"
	ident := conntrack.Entry{Original: tuple("192.0.2.1:40022", "10.0.0.1:113"), Reply: tuple("10.0.0.1:113", "192.0.2.1:40022"), State: "ESTABLISHED"}
	redirected := conntrack.Entry{Original: tuple("192.0.2.1:40022", "203.0.113.1:1113"), Reply: tuple("10.0.0.1:113", "192.0.2.1:40022"), State: "ESTABLISHED"}
	for _, tt := range []struct {
		name string
		v    conntrack.Event
		want []string
	}{
		{"new", conntrack.Event{Kind: conntrack.New, Entry: opening}, []string{"192.0.2.1: 40022 , 22 : SV : 10.0.0.1"}},
		{"established", conntrack.Event{Kind: conntrack.Updated, Entry: plain}, []string{"10.0.0.1: 22 , 40022 : SV : 192.0.2.1"}},
		{"on its way", conntrack.Event{Kind: conntrack.Updated, Entry: opening}, nil},
		{"over", conntrack.Event{Kind: conntrack.Destroyed, Entry: plain}, nil},
		{"masqueraded, new", conntrack.Event{Kind: conntrack.New, Entry: masked}, []string{"10.0.0.7: 40022 , 22 : SV : 198.51.100.1"}},
		{"masqueraded, established", conntrack.Event{Kind: conntrack.Updated, Entry: masked}, nil},
		{"forwarded, new", conntrack.Event{Kind: conntrack.New, Entry: forwarded}, nil},
		{"forwarded, established", conntrack.Event{Kind: conntrack.Updated, Entry: forwarded}, []string{"10.0.0.8: 8080 , 40022 : SV : 198.51.100.1"}},
		{"a question", conntrack.Event{Kind: conntrack.New, Entry: ident}, nil},
		{"a question that is forwarded", conntrack.Event{Kind: conntrack.Updated, Entry: redirected}, nil},
	} {
		var got []string
		if f, ok := trackedFlow(tt.v, newTime(0), c.Port); ok {
			qs, _ := c.choose(InputConntrack, f)
			for _, q := range qs {
				r, _ := q.request(nil)
				got = append(got, q.host.Addr().String()+": "+r.String())
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}
