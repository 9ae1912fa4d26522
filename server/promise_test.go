package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// Every token of a recursive question has one trace-back record, whatever it stands for, and all come the same time
// after their replies: nobody who sees the store grow can tell them apart.
func TestEveryRecursiveTokenHasOneRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type keeping struct {
			token stop.Token
			at    time.Time
		}
		var mu sync.Mutex
		var kept []keeping
		f := &fake{previous: func() []stop.Previous { return []stop.Previous{candidate("192.0.2.7:616", "192.0.2.1:22")} }}
		f.find = func(q stop.Question) error {
			if q.Request.Local == 9 {
				return stop.ErrNoUser
			}
			return nil
		}
		cfg := testConfig()
		cfg.Errors = ErrorsToken
		s := newServer(recorder{f, func(token stop.Token) {
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, keeping{token, time.Now()})
		}}, cfg)
		replied := map[stop.Token]time.Time{}
		for _, q := range []struct{ from, ports, rest string }{
			{"127.0.0.9", "1 , 2", "SV_REC : 7"},             // a report
			{"127.0.0.9", "1 , 2", "SV_REC : 7"},             // a duplicate
			{"127.0.0.9", "1 , 2", "SV_REC : 8"},             // followed already
			{"127.0.0.9", "1 , 3", "ID_REC : 7"},             // a name
			{"127.0.0.9", "9 , 2", "SV_REC : 7"},             // no connection
			{"127.0.0.9", "9 , 2", "ID_REC : 7"},             //
			{"127.0.0.8", "1 , 2", "SV_REC : 7 : 192.0.2.9"}, // may not ask on behalf of others
			{"127.0.0.2", "9 , 2", "SV_REC : 7 : 192.0.2.9"}, // on behalf, no connection
			{"127.0.0.9", "70000 , 2", "SV_REC : 7"},         // no port
		} {
			token := tokenIn(t, q.ports, once(t, s, q.from, q.ports+" : "+q.rest))
			replied[token] = time.Now()
			time.Sleep(time.Second)
		}
		for _, line := range []string{"1 , 2", "1 , 2 : SV", "9 , 2"} {
			once(t, s, "127.0.0.9", line)
		}
		s.settle()
		s.recorded()
		if len(kept) != len(replied) {
			t.Errorf("%d records of %d tokens", len(kept), len(replied))
		}
		for _, k := range kept {
			at, ok := replied[k.token]
			if got := k.at.Sub(at); !ok || got != recordAfter(cfg, stop.SVRec) {
				t.Errorf("a record %s after the reply, of a token that was sent: %t", got, ok)
			}
			delete(replied, k.token)
		}
		synctest.Wait()
		if len(s.promised.bySource) != 0 || s.promised.taken != 0 || len(s.tracing().promises.open) != 0 {
			t.Errorf("left over: %+v, %+v", s.promised, &s.tracing().promises)
		}
	})
}

// On a gateway questions of every type are led back, those of each type once in a window: to who asks for more, an answer to less is none.
func TestGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{forwards: true, previous: func() []stop.Previous { return []stop.Previous{candidate("127.0.0.7:616", "127.0.0.1:22")} }}
		cfg := testConfig()
		cfg.Forwards = true
		s := newServer(f, cfg)
		asked := 0
		for _, c := range []struct {
			rest  string
			asked bool
		}{
			{"", true}, {" : ID", false}, {" : SV", true}, {" : SV", false}, {" : SV_REC : 7", true}, {" : ID_REC : 7", true}, {" : SV_REC : 8", false},
		} {
			tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2"+c.rest))
			s.settle()
			if c.asked {
				asked++
			}
			if n := s.tracing().Counters.Asked.Load(); n != uint64(asked) {
				t.Errorf("after %q %d were asked, want %d", c.rest, n, asked)
			}
		}
		s.recorded()
		if len(f.kept) != 7 {
			t.Errorf("%d records of 7 tokens", len(f.kept))
		}
		s.finish(t)
	})
}

// The machines behind a gateway are asked as often as the gateway's own limits let who asks set that off: by what each machine may be asked about, and then by what he may ask.
func TestGatewayRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{forwards: true, previous: func() []stop.Previous { return []stop.Previous{candidate("127.0.0.7:616", "127.0.0.1:22")} }}
		cfg := testConfig()
		cfg.Forwards = true
		cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst, cfg.Limits.PerUserPerSecond, cfg.Limits.UserBurst = 1e-6, 3, 1e-6, 2
		s := newServer(f, cfg)
		for _, c := range []struct {
			from, rest string
			want       uint64 // asked so far
		}{
			{"127.0.0.9", " : SV", 5}, {"127.0.0.9", " : SV_REC : 7", 5}, {"127.0.0.9", "", 5}, {"127.0.0.8", " : ID", 8}, {"127.0.0.8", " : SV", 8},
		} {
			for port := range 10 {
				ports := fmt.Sprintf("%d , 2", port+1)
				tokenIn(t, ports, once(t, s, c.from, ports+c.rest))
			}
			s.settle()
			if n := s.tracing().Counters.Asked.Load(); n != c.want {
				t.Errorf("after ten of %q by %s %d were asked, want %d", c.rest, c.from, n, c.want)
			}
		}
		s.recorded()
		s.finish(t)
	})
}

// A recorder tells when trace-backs are kept.
type recorder struct {
	*fake
	kept func(stop.Token)
}

func (r recorder) keepTraceback(_ context.Context, t stop.Token, _ []stop.Traceback) error {
	r.kept(t)
	return nil
}

// Where there is no room, nothing is kept and nobody is asked, and the reply is a token all the same.
func TestNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := func(stop.Question) error { return fmt.Errorf("store full: %w", stop.ErrNoRoom) }
		f := &fake{examine: full, decline: func(q stop.Question, _ string) error { return full(q) },
			previous: func() []stop.Previous { return []stop.Previous{candidate("192.0.2.7:616", "127.0.0.1:22")} }}
		s := newServer(f, testConfig())
		for _, line := range []string{"SV_REC : 7", "SV_REC : 7", "SV", "ID_REC : 7", "SV_REC : 7 : 192.0.2.9"} {
			tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : "+line))
		}
		s.settle()
		s.recorded()
		if n := s.Counters.NoRoom.Load(); n != 5 || f.kept != nil || s.tracing().Counters.Asked.Load() != 0 {
			t.Errorf("%d without room, %d records, %d asked", n, len(f.kept), s.tracing().Counters.Asked.Load())
		}
		// It was not answered, so the next is no duplicate.
		f.examine = nil
		tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : SV_REC : 7"))
		if n := s.Counters.Duplicates.Load(); n != 0 {
			t.Errorf("%d duplicates", n)
		}
		s.finish(t)
	})
}

func TestKeepFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{keepErr: func([]stop.Traceback) error { return errors.New("disk broke") }}
		s := newServer(f, testConfig())
		tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : SV_REC : 7"))
		s.finish(t)
		if n := s.tracing().Counters.Failed.Load(); n != 1 {
			t.Errorf("%d failures counted", n)
		}
	})
}

// A later question about the same has the answers of the earlier one, also of whom that asked in place of those that were planned.
func TestReferred(t *testing.T) {
	ends := func(n byte) stop.Ends {
		return stop.Ends{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 4000), Local: netip.MustParseAddrPort("198.51.100.1:80")}
	}
	first := &promise{finding: stop.Finding{Token: stop.Token{1}}, records: []stop.Traceback{
		{Previous: ends(1), SelectedBy: selectedByBound, Kind: "none", Error: "not asked: another connection feeds the asked one"},
		{Previous: ends(2), SelectedBy: stop.SelectedByFlow, Asked: true, Kind: "token", Token: "t"},
	}}
	second := &promise{plan: []int{0}, records: []stop.Traceback{{Previous: ends(1)}, {Previous: ends(2), SelectedBy: selectedByBound, Kind: "none", Error: "too many candidates"}}}
	second.refer(first)
	for i, r := range second.due() {
		want := first.records[i]
		want.SameAs = first.finding.Token.String()
		if d := cmp.Diff(want, r, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("record %d (-want +got):\n%s", i, d)
		}
	}
}
