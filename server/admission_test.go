package server

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

func TestAdmission(t *testing.T) {
	const uid = 1000
	asker := Source(netip.MustParseAddr("127.0.0.9"))
	spend := func(t *testing.T, s *Server, owner, src bool) {
		l := s.config.Load().Limits
		for owner && s.users.spend(uid, time.Now(), l.perUser()) {
		}
		for src && s.sources.spend(asker, time.Now(), l.perSource()) {
		}
	}
	for _, c := range []struct {
		name       string
		owner, src bool // spent before
		lines      []string
		answered   []bool // else a token without a record
	}{
		{"first is the owner's", false, true, []string{"1,2:SV", "1,2:SV", "1,3:SV", "1,4:SV_REC:7"}, []bool{true, false, true, true}},
		{"names are the asker's", false, true, []string{"1,2", "1,2:ID_REC:7"}, []bool{false, false}},
		{"a spent owner hides nobody", true, false, []string{"1,2:SV", "1,3:SV_REC:7"}, []bool{true, true}},
		{"both spent", true, true, []string{"1,2:SV", "1,2:SV"}, []bool{false, false}},
		{"names do not make a first", false, false, []string{"1,2:ID_REC:7", "1,2", "1,2:SV"}, []bool{true, true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{uid: uid}
				cfg := testConfig()
				cfg.Limits.PerSourcePerSecond, cfg.Limits.PerUserPerSecond = 0.001, 0.001
				s := newServer(f, cfg)
				spend(t, s, c.owner, c.src)
				for i, line := range c.lines {
					_, before, _ := f.seen()
					if got := once(t, s, "127.0.0.9", line); shape(got) == got {
						t.Errorf("%q is answered %q", line, got)
					}
					if _, after, _ := f.seen(); (after > before) != c.answered[i] {
						t.Errorf("%q: examined is %t", line, after > before)
					}
				}
				s.under.Wait()
			})
		})
	}
	t.Run("one asker's misses are not another's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{find: errNoUser}
			cfg := testConfig()
			cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst, cfg.Limits.Over = 1, 5, OverError
			s := newServer(f, cfg)
			count := func(from string) (misses, over int) {
				for range 8 {
					switch got := once(t, s, from, "1 , 2 : SV"); got {
					case "1 , 2 : ERROR : NO-USER":
						misses++
					case "1 , 2 : ERROR : UNKNOWN-ERROR":
						over++
					}
				}
				return misses, over
			}
			for _, from := range []string{"127.0.0.3", "127.0.0.4"} {
				if misses, over := count(from); misses != 5 || over != 3 {
					t.Errorf("%s: %d misses and %d over", from, misses, over)
				}
			}
			time.Sleep(2 * time.Second)
			if misses, _ := count("127.0.0.3"); misses != 2 {
				t.Errorf("%d misses after two seconds at one a second", misses)
			}
		})
	})
	t.Run("what was over is the first again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{uid: uid}
			s := newServer(f, testConfig())
			l := s.config.Load().Limits
			spend(t, s, true, true)
			once(t, s, "127.0.0.9", "1 , 2 : SV")
			time.Sleep(time.Second) // both budgets are full again
			spend(t, s, false, true)
			once(t, s, "127.0.0.9", "1 , 2 : SV")
			if _, examined, _ := f.seen(); examined != 1 {
				t.Errorf("examined %d times with %v", examined, l)
			}
		})
	})
}

// Who found no room to be examined, or was not examined for another reason, has not been answered: the next is the first again, and
// the owner's.
func TestFirstAgain(t *testing.T) {
	for _, why := range []string{"no room", "disk"} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := errors.New("disk broke")
				if why == "no room" {
					broken = nil
				}
				f := &fake{uid: 1000, examine: func(stop.Question) error { return broken }}
				cfg := testConfig()
				cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst, cfg.Limits.Lookups = 1e-6, 1, 1
				s := newServer(f, cfg)
				once(t, s, "127.0.0.9", "1 , 2") // and nothing is left of the asker's allowance
				others := payer{source: Source(netip.MustParseAddr("192.0.2.7"))}
				if why == "no room" {
					s.lookups.take(others)
				}
				once(t, s, "127.0.0.9", "1 , 2 : SV")
				if why == "no room" {
					s.lookups.giveBack(others)
				}
				broken = nil
				_, before, _ := f.seen()
				tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : SV"))
				if _, after, _ := f.seen(); after != before+1 {
					t.Error("the next was not examined")
				}
			})
		})
	}
}

func TestAskersPerSID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		cfg := testConfig()
		cfg.Limits.AskersPerSID, cfg.Limits.Over = 2, OverError
		s := newServer(f, cfg)
		for i, c := range []struct {
			from, line string
			served     bool
		}{
			{"127.0.0.11", "1 , 2 : SV_REC : 7", true},
			{"127.0.0.12", "1 , 2 : SV_REC : 7", true},
			{"127.0.0.13", "1 , 2 : SV_REC : 7", false},
			{"127.0.0.13", "1 , 2 : SV_REC : 8", true},
			{"127.0.0.13", "1 , 2 : SV", true},
			{"127.0.0.11", "1 , 3 : SV_REC : 7", true}, // a loop comes back to who is served already
		} {
			if got := once(t, s, c.from, c.line); strings.Contains(got, "ERROR") == c.served {
				t.Errorf("%d: %q from %s is answered %q", i, c.line, c.from, got)
			}
		}
		s.under.Wait()
	})
}

// Requests about nothing must not fill the tables that tell duplicates.
func TestMissesEnterNoTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(&fake{find: errNoUser}, testConfig())
		for sid := range 50 {
			once(t, s, "127.0.0.9", fmt.Sprintf("1 , 2 : SV_REC : %d", sid))
		}
		if n := len(s.askers.known) + len(s.asked.known) + len(s.connection.known) + len(s.tracing().followed.known); n != 0 {
			t.Errorf("%d entries", n)
		}
	})
}

// Whoever fills the tables does not close them to others.
func TestFullTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		cfg := testConfig()
		cfg.Limits.Table = 10
		s := newServer(f, cfg)
		for sid := range 40 {
			once(t, s, "127.0.0.9", fmt.Sprintf("1 , %d : SV_REC : %d", sid+1, sid))
		}
		_, before, _ := f.seen()
		tokenIn(t, "1 , 99", once(t, s, "127.0.0.4", "1 , 99 : SV_REC : 99"))
		if _, after, _ := f.seen(); after != before+1 {
			t.Error("an innocent was not served")
		}
		for name, n := range map[string]int{"askers": len(s.askers.known), "asked": len(s.asked.known), "connections": len(s.connection.known),
			"sources": len(s.sources.known), "users": len(s.users.known)} {
			if n > 10 {
				t.Errorf("%s: %d entries", name, n)
			}
		}
		s.under.Wait()
	})
}

func TestLookupSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{examine: func(stop.Question) error { <-gate; return nil }}
		cfg := testConfig()
		cfg.Limits.Lookups, cfg.Limits.Over = 2, OverError
		s := newServer(f, cfg)
		replies := make(chan string, 3)
		for i := range cap(replies) {
			go func() { replies <- once(t, s, fmt.Sprintf("127.0.1.%d", i), fmt.Sprintf("1 , %d", i+1)) }()
		}
		start := time.Now()
		if got := <-replies; !strings.HasSuffix(got, " : ERROR : UNKNOWN-ERROR") || time.Since(start) != lookupWait {
			t.Errorf("the third is answered %q after %s", got, time.Since(start))
		}
		if _, examined, _ := f.seen(); examined != 2 {
			t.Errorf("%d examined at once", examined)
		}
		// Strangers and misses need no room.
		tokenIn(t, "1 , 2", once(t, s, "127.0.0.5", "1 , 2 : SV : 192.0.2.7"))
		close(gate)
		for range 2 {
			if got := <-replies; shape(got) == got {
				t.Errorf("one that had room is answered %q", got)
			}
		}
		if got := once(t, s, "127.0.0.9", "1 , 9 : SV"); shape(got) == got {
			t.Errorf("once there is room again: %q", got)
		}
	})
}
