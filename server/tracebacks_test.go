package server

import (
	"context"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

// A ledger remembers what became of previous hosts, and when it was told.
type ledger struct {
	mu      sync.Mutex
	records map[stop.Token][]stop.Traceback
	at      map[stop.Token]time.Time
}

func (l *ledger) keep(_ context.Context, t stop.Token, rs []stop.Traceback) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records == nil {
		l.records, l.at = map[stop.Token][]stop.Traceback{}, map[stop.Token]time.Time{}
	}
	l.records[t], l.at[t] = append([]stop.Traceback{}, rs...), time.Now()
	return nil
}

func findingOf(n byte) stop.Finding {
	return stop.Finding{Token: stop.Token{n}, Type: stop.SVRec, SID: 7, Requester: netip.MustParseAddr("192.0.2.9"),
		Connection: stop.Connection{ID: 1, Owner: 1000},
		Previous:   []stop.Previous{candidate("192.0.2.7:616", "127.0.0.1:22"), {Ends: stop.Ends{Remote: netip.MustParseAddrPort("192.0.2.8:5")}}}}
}

// The requester has its reply before anybody is asked.
func TestAskedAfterTheReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{previous: func() []stop.Previous { return findingOf(1).Previous }}
		cfg := testConfig()
		cfg.Traceback.Parallel = 1
		s := newServer(f, cfg)
		s.tracing().asking.take(payer{}) // who begins waits, and can be seen
		c := dialPipe(t, s, "127.0.0.9")
		io.WriteString(c, "1 , 2 : SV_REC : 7\r\n")
		synctest.Wait()
		if b := s.boundOf(t, "records_due"); b.Used != 1 {
			t.Errorf("%d records are due of one that was found", b.Used)
		}
		if b := s.boundOf(t, "tracebacks_begun"); b.Used != 0 {
			t.Error("it has begun before the reply has left")
		}
		tokenIn(t, "1 , 2", c.line())
		synctest.Wait()
		if b := s.boundOf(t, "tracebacks_begun"); b.Used != 1 {
			t.Error("it has not begun after the reply has left")
		}
		c.Close()
		s.finish(t)
	})
}

// Whoever answers can have asked what was found, once, and nothing else; what he does not begin is recorded when it is
// due all the same, and says so.
func TestWhatIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		cfg := testConfig()
		cfg.Traceback.Parallel = 1
		tb := NewTracebacks(l.keep, cfg)
		tb.asking.take(payer{}) // nobody is asked in earnest
		start := time.Now()
		for n := range byte(3) {
			f := findingOf(n)
			if n == 2 {
				f.Connection, f.Previous = stop.Connection{}, nil // a decoy
			}
			if err := tb.Found(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		if err := tb.Found(t.Context(), findingOf(0)); err == nil {
			t.Error("one token is found twice")
		}
		if err := tb.Found(t.Context(), stop.Finding{Token: stop.Token{9}, Type: stop.SV}); err == nil {
			t.Error("a question that asks nobody has a trace-back")
		}
		for i, want := range []struct {
			n  byte
			ok bool
		}{{0, true}, {0, false}, {9, false}} {
			if err := tb.Begin(t.Context(), stop.Token{want.n}); (err == nil) != want.ok {
				t.Errorf("begin %d: %v", i, err)
			}
		}
		tb.under.Wait()
		tb.promises.writing.Wait()
		for n := range byte(3) {
			if got := l.at[stop.Token{n}].Sub(start); got != recordAfter(cfg, stop.SVRec) {
				t.Errorf("%d is recorded after %s", n, got)
			}
		}
		if err := tb.Begin(t.Context(), stop.Token{1}); err == nil {
			t.Error("it begins when it is recorded")
		}
		for n, want := range []string{"not asked: too many trace-backs are under way", "not asked: its reply had not left"} {
			r := l.records[stop.Token{byte(n)}]
			if len(r) != 2 || r[0].Asked || r[0].SelectedBy != "bound" || r[0].Kind != "none" || r[0].Error != want || r[1].Asked {
				t.Errorf("%d: %+v", n, r)
			}
		}
		if r, ok := l.records[stop.Token{2}]; !ok || len(r) != 0 {
			t.Errorf("of a decoy: %+v", r)
		}
		if n := tb.Counters.Asked.Load(); n != 0 {
			t.Errorf("%d asked", n)
		}
	})
}

// A host that has not answered when the record is due did not answer, and is not said to be asked still; who refers to it
// later has its answer.
func TestNoAnswerWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		cfg := testConfig()
		tb := NewTracebacks(l.keep, cfg)
		for n := range byte(2) {
			if err := tb.Found(t.Context(), findingOf(n)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		slow, _ := tb.promises.begin(stop.Token{0}, &tb.under)
		later, _ := tb.promises.begin(stop.Token{1}, &tb.under)
		later.refer(slow)
		time.Sleep(recordAfter(cfg, stop.SVRec) - 2*time.Second)
		synctest.Wait()
		due := time.Now().UTC()
		answer := slow.record(0)
		answer.Answered, answer.Kind = due.Add(time.Millisecond), "error"
		slow.change(0, answer)
		tb.under.Add(-2)
		tb.promises.writing.Wait()
		if r := l.records[stop.Token{0}][0]; !r.Asked || r.Kind != "none" || r.Answered != due || r.Error != "no answer before this was recorded" {
			t.Errorf("%+v", r)
		}
		if r := l.records[stop.Token{1}][0]; r.Kind != "error" || r.SameAs != (stop.Token{0}).String() || r.Error != "" {
			t.Errorf("of who refers to it: %+v", r)
		}
	})
}

// However much is found, only so much is kept until it is due; after the end there is nothing.
func TestRecordsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		cfg := testConfig()
		cfg.Limits.Table = 4
		tb := NewTracebacks(l.keep, cfg)
		taken := 0
		for n := range byte(50) {
			if tb.Found(t.Context(), findingOf(n)) == nil {
				taken++
			}
		}
		if b := tb.Bounds()[0]; taken != 8 || b != (Bound{"records_due", 8, 8, 42}) {
			t.Errorf("%d taken, %+v", taken, b)
		}
		if err := tb.Wait(t.Context()); err != nil || len(l.records) != taken {
			t.Errorf("%d recorded, %v", len(l.records), err)
		}
		if tb.Found(t.Context(), findingOf(99)) == nil {
			t.Error("more is taken after the end")
		}
	})
}

// What both halves count is told together, in one order.
func TestAllCounted(t *testing.T) {
	s := newServer(&fake{}, testConfig())
	s.Counters.Failed.Add(2)
	s.tracing().Counters.Failed.Add(3)
	s.tracing().Counters.Asked.Add(5)
	all, err := s.AllCounted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for i, c := range all.Counts {
		if own := s.Counters.Counts(); i >= len(own) || own[i].Name != c.Name {
			t.Errorf("%s is not in its place", c.Name)
		}
		got[c.Name] = c.N
	}
	if got["failed"] != 5 || got["asked"] != 5 || got["tokens"] != 0 || len(got) != 16 {
		t.Errorf("%v", got)
	}
	if len(all.Bounds) != len(s.Bounds())+len(s.tracing().Bounds()) {
		t.Errorf("%d bounds", len(all.Bounds))
	}
}
