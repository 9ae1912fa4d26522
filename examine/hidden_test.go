package examine

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// A hiddenHost translates the addresses of its connections, and does not tell how.
type hiddenHost struct{ host.Host }

func (h hiddenHost) Find(context.Context, host.Flow) (host.Socket, error) {
	return host.Socket{}, &host.HiddenError{Seen: []host.Socket{{Protocol: host.TCP, Local: netip.MustParseAddrPort("10.0.0.2:5555"),
		Remote: netip.MustParseAddrPort("3.3.3.3:23"), UID: 1001, NetNS: 7}}}
}

// No owner is invented, and what was seen is saved.
func TestHidden(t *testing.T) {
	for _, line := range []string{"968,23", "968,23:SV_REC:7", "968,23:ID_REC:7"} {
		x, k := examiner(t)
		x.Host = hiddenHost{x.Host}
		c, err := x.Find(t.Context(), question(t, line))
		if err != nil || c.Owner != x.number("user %d", uint32(nobody)) {
			t.Errorf("%s: found %+v, %v", line, c, err)
		}
		if _, err := x.Examine(t.Context(), question(t, line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if f := k.found(t); len(f.Previous) > 0 {
			t.Errorf("%s: found is %+v", line, f)
		}
		r, err := report.Decode(k.reports[0])
		if err != nil {
			t.Fatal(err)
		}
		if r.Connection != nil || len(r.Processes)+len(r.Previous) > 0 {
			t.Errorf("%s: an owner is invented: %s", line, report.Text(r))
		}
		g := r.Gaps[len(r.Gaps)-1]
		if g.What != "connection" || !strings.Contains(g.Why, "10.0.0.2:5555 -> 3.3.3.3:23 of uid 1001 in namespace 7") {
			t.Errorf("%s: gaps are %+v", line, r.Gaps)
		}
	}
}

// A socket with other ends than those asked about is reported with both, and charged as it was asked.
func TestTranslated(t *testing.T) {
	x, k := examiner(t)
	rec := recording(t)
	for i, s := range rec.Sockets {
		if s.Local.Port() == 968 {
			rec.Sockets[i].NAT = host.NAT{Original: host.Ends{Local: netip.MustParseAddrPort("10.0.0.2:5555"), Remote: s.Remote},
				Translated: host.Ends{Local: s.Local, Remote: s.Remote}}
			rec.Sockets[i].Local = netip.MustParseAddrPort("10.0.0.2:5555")
		}
	}
	x.Host = &host.Replay{Recording: rec}
	q := question(t, "968,23:SV")
	c, err := x.Find(t.Context(), q)
	if want := x.number("connection %s %s", q.Local, q.Remote); err != nil || c.ID != want {
		t.Fatalf("found %+v, %v", c, err)
	}
	if _, err := x.Examine(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	r, err := report.Decode(k.reports[0])
	if err != nil {
		t.Fatal(err)
	}
	n := r.Connection.NAT
	if n == nil || n.Original.Local != netip.MustParseAddrPort("10.0.0.2:5555") || n.Translated.Local != q.Local || n.Translated.Remote != q.Remote {
		t.Errorf("translation is %+v", n)
	}
	if !strings.Contains(report.Text(r), "Translated by this host from: 10.0.0.2:5555 -> 3.3.3.3:23") {
		t.Error(report.Text(r))
	}
}
