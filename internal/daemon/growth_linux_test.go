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

	// records are those that are sealed, and how many there are with the batches' own, which come with the first in a second, whatever it is.
	records := func() (sealed []evidence.Entry, all int64) {
		t.Helper()
		err := evidence.List(s.cfg.Store, func(e evidence.Entry) error {
			if all++; e.Type == "report" || e.Type == "traceback" {
				sealed = append(sealed, e)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sealed, all
	}
	const trials = 16
	apart := map[string][]time.Duration{} // between the records of a question
	ask := func(kind string, r stop.Request) {
		t.Helper()
		before, size := records()
		a, err := (&stop.Client{}).Ask(t.Context(), to, r)
		if err != nil || a.Token == (stop.Token{}) {
			t.Fatalf("%s: %q, %v", kind, a.Line, err)
		}
		var got []evidence.Entry
		var all int64
		eventually(t, stateTime, func() bool {
			got, all = records()
			got = got[len(before):]
			return len(got) >= 2 && store.Log().Size() == all
		}, func() string { return fmt.Sprintf("%s: it added %+v alone", kind, got) })
		if got[0].Type != "report" || got[1].Type != "traceback" {
			t.Fatalf("%s: it added %+v", kind, got)
		}
		if grew := all - size; grew < 2 || grew > 4 {
			t.Errorf("%s: the log grew by %d", kind, grew)
		}
		apart[kind] = append(apart[kind], got[1].Time.Sub(got[0].Time))
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
	before, _ := records()
	time.Sleep(2 * recordedAfter)
	if after, _ := records(); len(before) != 3*2*trials || !cmp.Equal(before, after) {
		t.Errorf("%d records, and later:\n%s", len(before), cmp.Diff(before, after))
	}
	// How much longer each takes the machine decides; the least of many is near to what was set.
	real := slices.Min(apart["real"])
	for kind, all := range apart {
		least := slices.Min(all)
		if least < recordedAfter-time.Millisecond {
			t.Errorf("%s is recorded %s after its report", kind, least)
		}
		if d := (least - real).Abs(); d > recordedAfter/2 {
			t.Errorf("%s is told from real ones by %s:\n%v\n%v", kind, d, all, apart["real"])
		}
	}
}

// recordedAfter is how long after its report the trace-back of the test is recorded, and no earlier: the time for a host, a tenth of it, and a slot.
const recordedAfter = 75 * time.Millisecond
