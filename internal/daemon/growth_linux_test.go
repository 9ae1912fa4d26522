package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
)

// What a witness is told of a log is its size, at every checkpoint. One that asks as well, and looks far closer
// than a checkpoint every 10 seconds allows, at the very time of every leaf, cannot tell a recursive question that
// was followed from one that was answered with a decoy or as a duplicate: each adds as many records, as long apart.
func TestLogGrowthTellsNothing(t *testing.T) {
	s := newSite(t)
	s.cfg.Traceback.Timeout = Duration{50 * time.Millisecond}
	s.cfg.Limits.PerSourcePerSecond, s.cfg.Limits.Burst = 10000, 10000
	s.cfg.Limits.PerUserPerSecond, s.cfg.Limits.UserBurst = 10000, 10000
	store, address := s.inProcess(t)
	to := netip.MustParseAddrPort(address)

	// records are those that are sealed: a batch's own comes with the first in a second, whatever it is.
	records := func() (all []evidence.Entry) {
		t.Helper()
		err := evidence.List(s.cfg.Store, func(e evidence.Entry) error {
			if e.Type == "report" || e.Type == "traceback" {
				all = append(all, e)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// With as many, chance alone is told apart as well as that once in fifteen million times.
	const trials = 32
	apart := map[string][]float64{} // seconds between the records of a question
	ask := func(kind string, r stop.Request) {
		t.Helper()
		before, size := len(records()), store.Log().Size()
		a, err := (&stop.Client{}).Ask(t.Context(), to, r)
		if err != nil || a.Token == (stop.Token{}) {
			t.Fatalf("%s: %q, %v", kind, a.Line, err)
		}
		var got []evidence.Entry
		eventually(t, stateTime, func() bool {
			got = records()[before:]
			return len(got) >= 2 && store.Log().Size()-size >= 2
		}, func() string { return fmt.Sprintf("%s: it added %+v alone", kind, got) })
		if got[0].Type != "report" || got[1].Type != "traceback" {
			t.Fatalf("%s: it added %+v", kind, got)
		}
		if grew := store.Log().Size() - size; grew < 2 || grew > 4 {
			t.Errorf("%s: the log grew by %d", kind, grew)
		}
		apart[kind] = append(apart[kind], got[1].Time.Sub(got[0].Time).Seconds())
	}
	for range trials {
		local, remote := connection(t)
		r := stop.Request{Local: uint64(local.Port()), Remote: uint64(remote.Port()), Type: stop.SVRec, SID: rand.Uint64()}
		ask("real", r)
		ask("duplicate", r)
		decoy := r
		decoy.For, decoy.SID = netip.MustParseAddr("192.0.2.7"), rand.Uint64()
		ask("decoy", decoy)
	}
	// Nothing comes later.
	before := records()
	time.Sleep(2 * recordedWithin)
	if d := cmp.Diff(before, records()); d != "" || len(before) != 3*2*trials {
		t.Errorf("%d records, and later:\n%s", len(before), d)
	}
	for _, kind := range []string{"decoy", "duplicate"} {
		if told := bestGuess(apart["real"], apart[kind]); told > 0.85 {
			t.Errorf("real and %s are told apart %.0f%% of the time:\n%v\n%v", kind, 100*told, apart["real"], apart[kind])
		}
	}
}

// recordedWithin is about how long after its report the trace-back of the test is recorded.
const recordedWithin = 75 * time.Millisecond

// bestGuess is how often the best threshold tells two samples of one length apart: 0.5 is chance, and with few
// values somewhat more.
func bestGuess(a, b []float64) float64 {
	best := 0.5
	for _, at := range slices.Concat(a, b) {
		below := 0
		for _, x := range a {
			if x <= at {
				below++
			}
		}
		for _, x := range b {
			if x > at {
				below++
			}
		}
		share := float64(below) / float64(len(a)+len(b))
		best = max(best, share, 1-share)
	}
	return best
}

func TestBestGuess(t *testing.T) {
	if got := bestGuess([]float64{1, 2, 3}, []float64{4, 5, 6}); got != 1 {
		t.Errorf("apart: %v", got)
	}
	if got := bestGuess([]float64{1, 3, 5, 7}, []float64{2, 4, 6, 8}); got > 0.7 {
		t.Errorf("mixed: %v", got)
	}
}
