package trace_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/trace"
)

// proxied is a process that has accepted a, b and c, and opened o for a, and p and q for the others, all of them so that nothing
// tells which belong to each other.
func proxied() *trace.Watched {
	at := time.Unix(1000, 0)
	connection := func(i rune, d host.Direction) host.Descriptor {
		return host.Descriptor{Kind: host.TCP, Inode: uint64(i), Direction: d, Local: netip.MustParseAddrPort("192.0.2.2:80"),
			Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i)), Bytes: host.Bytes{Sent: 5, Received: 5}, Last: host.Last{Sent: at, Received: at}}
	}
	w := &trace.Watched{Asked: connection('o', host.Outbound)}
	for _, i := range "abc" {
		w.Candidates = append(w.Candidates, connection(i, host.Inbound))
	}
	for _, i := range "pq" {
		w.Others = append(w.Others, connection(i, host.Outbound))
	}
	w.Others = append(w.Others, host.Descriptor{Kind: host.TCP, Inode: 'l', State: "LISTEN"})
	return w
}

// opened has the process remembered to have had its connections since these moments, in this order and so far apart.
func opened(w *trace.Watched, order string, apart time.Duration) {
	all := []*host.Descriptor{&w.Asked}
	for _, ds := range [][]host.Descriptor{w.Candidates, w.Others} {
		for i := range ds {
			all = append(all, &ds[i])
		}
	}
	for _, d := range all {
		if i := strings.IndexRune(order, rune(d.Inode)); i >= 0 {
			d.Opened = time.Unix(2000, 0).Add(time.Duration(i) * apart)
		}
	}
}

func TestSigns(t *testing.T) {
	ms := time.Millisecond
	octets := func(d *host.Descriptor, sent, received uint64) { d.Bytes = host.Bytes{Sent: sent, Received: received} }
	last := func(d *host.Descriptor, sent, received time.Duration) {
		d.Last = host.Last{Sent: time.Unix(2000, 0).Add(sent), Received: time.Unix(2000, 0).Add(received)}
	}
	for name, tt := range map[string]struct {
		change func(*trace.Watched)
		want   string // of a, b and c
	}{
		"none": {func(*trace.Watched) {}, ",,"},
		"octets": {func(w *trace.Watched) {
			octets(&w.Asked, 700, 90)
			octets(&w.Candidates[1], 90, 700)
		}, ",octets,"},
		"octets one way": {func(w *trace.Watched) {
			octets(&w.Asked, 700, 90)
			octets(&w.Candidates[1], 500, 700)
		}, ",,"},
		"octets of two": {func(w *trace.Watched) {
			octets(&w.Asked, 700, 90)
			octets(&w.Candidates[1], 90, 700)
			octets(&w.Candidates[2], 91, 700)
		}, ",,"},
		"octets of two that were opened": {func(w *trace.Watched) {
			octets(&w.Asked, 700, 90)
			octets(&w.Others[0], 700, 90)
			octets(&w.Candidates[1], 90, 700)
		}, ",,"},
		"no octets": {func(w *trace.Watched) {
			octets(&w.Asked, 0, 0)
			octets(&w.Candidates[1], 0, 0)
		}, ",,"},
		"last": {func(w *trace.Watched) {
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Candidates[0], 1003*ms, 5*ms)
		}, "last,,"},
		"last, late": {func(w *trace.Watched) {
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Candidates[0], 1203*ms, 5*ms)
		}, ",,"},
		"last one way": {func(w *trace.Watched) {
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Candidates[0], 2001*ms, 5*ms)
		}, ",,"},
		"last of two": {func(w *trace.Watched) {
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Candidates[0], 1003*ms, 5*ms)
			last(&w.Candidates[1], 1053*ms, 5*ms)
		}, ",,"},
		"last of two that were opened": {func(w *trace.Watched) {
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Others[1], 7*ms, 1051*ms)
			last(&w.Candidates[0], 1003*ms, 5*ms)
		}, ",,"},
		"last is not told":              {func(w *trace.Watched) { w.Asked.Last = host.Last{} }, ",,"},
		"opened":                        {func(w *trace.Watched) { opened(w, "cqbpao", ms) }, "opened,,"},
		"opened with the first unknown": {func(w *trace.Watched) { opened(w, "ao", ms) }, ",,"},
		"opened after two":              {func(w *trace.Watched) { opened(w, "cqbaop", ms) }, ",,"},
		"opened after another":          {func(w *trace.Watched) { opened(w, "cqabpo", ms) }, ",,"},
		"opened later":                  {func(w *trace.Watched) { opened(w, "cqbpao", 1001*ms) }, ",,"},
		"opened after one that is none": {func(w *trace.Watched) { opened(w, "cqbpao", ms); w.Candidates = w.Candidates[1:] }, ","},
		"opened after one that has closed": {func(w *trace.Watched) {
			opened(w, "cqbpa.o", ms)
			w.Held = []host.Socket{{Direction: host.Inbound, Opened: time.Unix(2000, 0).Add(5 * ms), Closed: time.Unix(3000, 0)}}
		}, ",,"},
		"opened after one that was opened and has closed": {func(w *trace.Watched) {
			opened(w, "cqbp.ao", ms)
			w.Held = []host.Socket{{Direction: host.Outbound, Opened: time.Unix(2000, 0).Add(4 * ms), Closed: time.Unix(3000, 0)}}
		}, "opened,,"},
		"opened at a time that is not known": {func(w *trace.Watched) { opened(w, "cqbpa", ms) }, ",,"},
		"all": {func(w *trace.Watched) {
			octets(&w.Asked, 700, 90)
			octets(&w.Candidates[1], 90, 700)
			last(&w.Asked, 7*ms, 1001*ms)
			last(&w.Candidates[1], 1003*ms, 5*ms)
			opened(w, "apbocq", ms)
			w.Transfers = script("1 <b, 1 >o")
		}, ",last octets opened passed,"},
	} {
		t.Run(name, func(t *testing.T) {
			w := proxied()
			tt.change(w)
			var got []string
			for _, f := range w.Feeds(map[uint64]bool{}) {
				if want := map[bool]trace.Grade{true: trace.Supported, false: trace.Unknown}[len(f.Signs) > 0]; f.Grade != want {
					t.Errorf("%v is %s", f.Signs, f.Grade)
				}
				got = append(got, strings.Join(f.Signs, " "))
			}
			if d := cmp.Diff(tt.want, strings.Join(got, ",")); d != "" {
				t.Errorf("signs (-want +got):\n%s", d)
			}
		})
	}
}
