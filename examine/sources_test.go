package examine

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stopd/stopd/host"
)

// Connection tracking is a source of the reports that have something of it, and of no others.
func TestSources(t *testing.T) {
	inner := netip.MustParseAddrPort("10.0.0.2:5555")
	asked := func(rec *host.Recording) {
		for i, s := range rec.Sockets {
			if s.Local.Port() == 968 {
				ends := host.Ends{Local: s.Local, Remote: s.Remote}
				rec.Sockets[i].NAT = host.NAT{Original: host.Ends{Local: inner, Remote: s.Remote}, Translated: ends}
			}
		}
	}
	previous := func(rec *host.Recording) {
		for _, p := range rec.Processes {
			for i, d := range p.Descriptors {
				if d.Remote == netip.MustParseAddrPort("1.1.1.1:616") {
					p.Descriptors[i].Outer = &host.Outer{Local: d.Local, Remote: d.Remote}
					p.Descriptors[i].Local = inner
				}
			}
		}
	}
	for _, c := range []struct {
		name, line string
		change     func(*host.Recording)
		want       []string
	}{
		{"nothing", "968,23:SV", func(*host.Recording) {}, []string{"proc"}},
		{"the asked connection", "968,23", asked, []string{"proc", "conntrack"}},
		{"a previous host", "968,23:SV", previous, []string{"proc", "conntrack"}},
		{"a previous host, not looked for", "968,23", previous, []string{"proc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, k := examiner(t)
			rec := recording(t)
			c.change(&rec)
			x.Host = &host.Replay{Recording: rec}
			for range 2 {
				got, err := x.Examine(t.Context(), question(t, c.line))
				if err != nil {
					t.Fatal(err)
				}
				if r := k.last(t, got.Token); !slices.Equal(r.Tool.Sources, c.want) {
					t.Errorf("sources are %v, want %v", r.Tool.Sources, c.want)
				}
			}
		})
	}
}
