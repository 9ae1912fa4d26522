package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

var testSlots = Slots{ID: 5 * time.Millisecond, IDRec: 20 * time.Millisecond, SV: 20 * time.Millisecond, SVRec: 30 * time.Millisecond}

// Whatever a reply says, it leaves on the grid of its type.
func TestRepliesLeaveOnTheGrid(t *testing.T) {
	for _, c := range []struct {
		name, from, line string
		find             func(stop.Question) error
		over             bool
		work             time.Duration // of finding, and again of examining
		want             time.Duration
	}{
		{name: "ID", line: "1 , 2", want: 5 * time.Millisecond},
		{name: "ID, slow", line: "1 , 2", work: 6 * time.Millisecond, want: 10 * time.Millisecond},
		{name: "ID, to the instant", line: "1 , 2", work: 5 * time.Millisecond, want: 10 * time.Millisecond},
		{name: "SV", line: "1 , 2 : SV", work: time.Millisecond, want: 20 * time.Millisecond},
		{name: "SV, late", line: "1 , 2 : SV", work: 41 * time.Millisecond, want: 60 * time.Millisecond},
		{name: "SV_REC", line: "1 , 2 : SV_REC : 7", want: 30 * time.Millisecond},
		{name: "ID_REC", line: "1 , 2 : ID_REC : 7", want: 20 * time.Millisecond},
		{name: "absent", line: "1 , 2 : SV", find: errNoUser, want: 20 * time.Millisecond},
		{name: "invalid port", line: "1 , 0", want: 5 * time.Millisecond},
		{name: "stranger", from: "127.0.0.3", line: "1 , 2 : SV : 192.0.2.7", want: 20 * time.Millisecond},
		{name: "on behalf, absent", from: "127.0.0.2", line: "1 , 2 : ID : 192.0.2.7", find: errNoUser, want: 5 * time.Millisecond},
		{name: "over a bound", line: "1 , 2 : SV", find: errNoUser, over: true, want: 20 * time.Millisecond},
		{name: "does not parse", line: "1 , 2 : XY", want: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.Slots = testSlots
				if c.over {
					cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst = 1e-6, 1
				}
				s := newServer(&fake{find: c.find, examine: func(stop.Question) error { time.Sleep(c.work); return nil }}, cfg)
				if c.from == "" {
					c.from = "127.0.0.9"
				}
				if c.over {
					once(t, s, c.from, c.line)
				}
				start := time.Now()
				if got := once(t, s, c.from, c.line); got == "" {
					t.Fatal("no reply")
				}
				if got := time.Since(start); got != c.want {
					t.Errorf("answered after %s, not %s", got, c.want)
				}
				s.finish(t)
			})
		})
	}
}

// The requests of one connection are each on a grid of their own; without slots there is none.
func TestGridOfOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Slots = testSlots
		s := newServer(&fake{}, cfg)
		c := dialPipe(t, s, "127.0.0.9")
		start := time.Now()
		for i := range 3 {
			time.Sleep(7 * time.Millisecond)
			c.ask("1 , 2\r\n")
			if got, want := time.Since(start), time.Duration(i+1)*12*time.Millisecond; got != want {
				t.Errorf("reply %d after %s, not %s", i, got, want)
			}
		}
		next := testConfig()
		s.Configure(next)
		start = time.Now()
		c.ask("1 , 2\r\n")
		if got := time.Since(start); got != 0 {
			t.Errorf("without a grid after %s", got)
		}
	})
}

// Where real answers are late, decoys and duplicates are as late, as often.
func TestDecoysDrawSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slot, times = 30 * time.Millisecond, 600
		cfg := testConfig()
		cfg.Slots = testSlots
		cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst, cfg.Limits.PerUserPerSecond, cfg.Limits.UserBurst = 1e6, 1e6, 1e6, 1e6
		turn := 0
		f := &fake{examine: func(stop.Question) error {
			if turn++; turn%4 == 0 {
				time.Sleep(2*slot + slot/2)
			}
			return nil
		}}
		s := newServer(f, cfg)
		took := func(from, line string) time.Duration {
			start := time.Now()
			once(t, s, from, line)
			return time.Since(start)
		}
		// A real answer of one type says nothing of another's.
		for range 8 {
			took("127.0.0.9", "1 , 2 : SV")
		}
		if got := took("127.0.0.3", "1 , 2 : SV_REC : 1 : 192.0.2.7"); got != slot {
			t.Errorf("a decoy before anything real after %s", got)
		}
		late := 0
		for i := range times {
			if i%10 == 0 {
				time.Sleep(cfg.Traceback.Window)
				took("127.0.0.9", "1 , 2 : SV_REC : 7")
			}
			switch got := took("127.0.0.3", "1 , 2 : SV_REC : 1 : 192.0.2.7"); got {
			case 3 * slot:
				late++
			case slot:
			default:
				t.Fatalf("a decoy after %s", got)
			}
		}
		// Six standard deviations below what is drawn on average, while there are few real ones at first.
		if share := float64(late) / times; share < 0.12 || share > 0.35 {
			t.Errorf("%.0f%% of decoys are late, where 25%% of real answers are", 100*share)
		}
		s.finish(t)
	})
}
