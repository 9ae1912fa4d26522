package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/server"
)

// Each role serves another what is in joins, and the supervisor's calls to nobody but it.
func TestOnlyWhatIsJoined(t *testing.T) {
	type ask struct{ from, to role }
	want := map[ask][]call{
		{front, collector}: {callCounted, callFind, callExamine, callDecline, callRecorded}, {front, tracer}: {callCounted, callBegin},
		{front, keeper}:     {callCertificate, callSignServer},
		{collector, tracer}: {callFound, callResolve}, {tracer, collector}: {callFlow}, {collector, keeper}: {callKeep, callCheckpoint, callKeepPast, callPast},
		{tracer, keeper}: {callKeepTraceback, callCertificate, callSignClient}, {keeper, tracer}: {callPost, callForward},
	}
	got := map[ask][]call{}
	for _, to := range roles {
		p := &process{role: to}
		var served part = servesAll{}
		p.part.Store(&served)
		for _, from := range roles {
			for c := callFailure + 1; c < calls; c++ {
				if _, err := p.serveOther(from)(t.Context(), c, nil); err == nil {
					got[ask{from, to}] = append(got[ask{from, to}], c)
				}
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	supervisors := []call{callStart, callStop, callReload, callLog, callProve, callAbilities, callRecordConfig, callKeeping}
	for _, calls := range want {
		if slices.ContainsFunc(calls, func(c call) bool { return slices.Contains(supervisors, c) }) {
			t.Errorf("%v has calls of the supervisor", calls)
		}
	}
	if _, err := (&process{role: tracer}).serveOther(front)(t.Context(), callBegin, nil); err == nil {
		t.Error("a process that has not started serves")
	}
}

// servesAll is a part that does whatever it is asked.
type servesAll struct{ part }

func (servesAll) serves(context.Context, call, []byte) ([]byte, error) { return nil, nil }

// asksNobody are trace-backs that may ask nobody, and where they keep nothing.
func asksNobody(table int) *server.Tracebacks {
	c := Defaults()
	c.Traceback.To, c.Limits.Table = nil, table
	s := serverConfig(c)
	s.Logger = slog.New(slog.DiscardHandler)
	return server.NewTracebacks(func(context.Context, stop.Token, []stop.Traceback) error { return nil }, s)
}

// Whatever the front and the collector say, the tracer holds no more than its bounds, and begins what was found, once.
func FuzzTracer(f *testing.F) {
	end := netip.MustParseAddrPort("[fe80::1%eth0]:9")
	found, err := json.Marshal(stop.Finding{Token: stop.Token{1}, Type: stop.SVRec, SID: 7, Requester: end.Addr(),
		Connection: stop.Connection{ID: 1, Owner: 9},
		Previous:   []stop.Previous{{Ends: stop.Ends{Remote: end, Local: end}, Reasons: []string{"inbound"}, Corroborated: true}, {}}})
	if err != nil {
		f.Fatal(err)
	}
	token, err := json.Marshal(stop.Token{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(found, token)
	f.Add([]byte(`{"Type":1}`), []byte(`[]`))
	f.Add([]byte(`{"Type":3,"Previous":[{"remote":"","Reasons":[""]}]}`), []byte("null"))
	f.Add([]byte(`{"Type":255,"SID":-1}`), []byte("{}"))
	f.Add([]byte("null"), []byte(`[1,2,3,256]`))
	f.Fuzz(func(t *testing.T, found, token []byte) {
		const table = 1
		tb := asksNobody(table)
		call := func(c call, b []byte) error {
			_, err := (&tracerPart{tracebacks: tb}).serves(t.Context(), c, b)
			return err
		}
		if call(callBegin, token) == nil {
			t.Error("begun before anything was found")
		}
		taken := 0
		for range 4 * table {
			if call(callFound, found) == nil {
				taken++
			}
		}
		begun := 0
		for range 2 {
			if call(callBegin, token) == nil {
				begun++
			}
		}
		if begun > taken || taken > 1 {
			t.Errorf("%d taken, %d begun", taken, begun)
		}
		b, err := (&tracerPart{tracebacks: tb}).serves(t.Context(), callCounted, nil)
		var c server.Counted
		if err != nil || json.Unmarshal(b, &c) != nil {
			t.Errorf("counted: %v", err)
		}
		for _, b := range c.Bounds {
			if b.Used > b.Limit {
				t.Errorf("%+v", b)
			}
		}
		if err := tb.Wait(t.Context()); err != nil || call(callFound, found) == nil || call(callBegin, token) == nil {
			t.Errorf("it goes on after its end: %v", err)
		}
	})
}

// A link to a tracer carries what is found and begun.
func TestTracing(t *testing.T) {
	tb := asksNobody(10)
	a, b := net.Pipe()
	x, y := newLink(a, nil), newLink(b, func(ctx context.Context, c call, b []byte) ([]byte, error) {
		return (&tracerPart{tracebacks: tb}).serves(ctx, c, b)
	})
	defer func() { x.close(); y.close(); <-x.ended; <-y.ended }()
	by, token := tracing{x}, stop.Token{9}
	if err := by.Begin(t.Context(), token); err == nil || errors.Is(err, errLink) {
		t.Errorf("begin what was not found: %v", err)
	}
	if err := by.Found(t.Context(), stop.Finding{Token: token, Type: stop.SV}); err == nil {
		t.Error("a question of no recursive type is taken")
	}
	if err := errors.Join(by.Found(t.Context(), stop.Finding{Token: token, Type: stop.SVRec, Previous: make([]stop.Previous, 3)}), by.Begin(t.Context(), token)); err != nil {
		t.Error(err)
	}
	all, err := by.Counted(t.Context())
	i := slices.IndexFunc(all.Bounds, func(b server.Bound) bool { return b.Name == "records_due" })
	if err != nil || i < 0 || all.Bounds[i].Used != 1 {
		t.Errorf("counted %+v, %v", all, err)
	}
	if err := tb.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// Of a host with too many addresses nothing is known: who has one that would be left out is not hidden from otherwise.
func TestAddressesOfNames(t *testing.T) {
	var found []netip.Addr
	a := netip.MustParseAddr("::ffff:192.0.2.0")
	for range maxAddresses {
		found = append(found, a)
		a = a.Next()
	}
	got, err := addressesOf(found)
	if err != nil || len(got) != maxAddresses || got[1] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := addressesOf(append(found, a)); err == nil || got != nil {
		t.Errorf("%d of too many, %v", len(got), err)
	}
}
