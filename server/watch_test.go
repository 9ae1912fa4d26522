package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

// TestWatchPlaces: whoever has many processes watched keeps nobody else from having one watched next.
func TestWatchPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		var watched []byte // first octets of the tokens
		end := make(chan struct{})
		cfg.Flow = func(ctx context.Context, of stop.Token) ([]stop.Fed, error) {
			watched = append(watched, of[0])
			<-end
			return nil, nil
		}
		tb := NewTracebacks(nil, cfg)
		ask := func(source string, token byte) {
			p := &promise{finding: stop.Finding{Token: stop.Token{token}, Watchable: true}, by: payer{source: Source(netip.MustParseAddr(source)), owner: 33, owned: true}}
			go tb.watch(cfg, p, time.Hour)
			synctest.Wait()
		}
		for i := range byte(5) {
			ask("192.0.2.1", 1+i)
		}
		ask("198.51.100.1", 10)
		if want := []byte{1, 10}; !slices.Equal(watched, want) {
			t.Errorf("watched %v before any has ended, want %v", watched, want)
		}
		close(end)
		synctest.Wait()
		if want := []byte{1, 10, 2, 3, 4, 5}; !slices.Equal(watched, want) {
			t.Errorf("watched %v, want %v", watched, want)
		}
	})
}

// TestWatchTooLate: who waits for too long goes without, and a later question about the same may have it watched.
func TestWatchTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		end := make(chan struct{})
		cfg.Flow = func(context.Context, stop.Token) ([]stop.Fed, error) { <-end; return nil, nil }
		tb := NewTracebacks(nil, cfg)
		p := func() *promise { return &promise{finding: stop.Finding{Watchable: true}} }
		go tb.watch(cfg, p(), time.Hour)
		synctest.Wait()
		late := p()
		tb.watch(cfg, late, time.Second)
		if !late.untold() {
			t.Error("it was told something")
		}
		close(end)
	})
}

// TestWatchAgain: where watching told nothing, a later question about the same connection has it watched again, until it tells something. Whom it means then is
// asked, unless the first has asked him.
func TestWatchAgain(t *testing.T) {
	all := []stop.Previous{candidate("127.0.0.21:616", "127.0.0.1:22"), candidate("127.0.0.22:616", "127.0.0.1:22")}
	told := func(i int, grade string) []stop.Fed {
		f := stop.Flow{Grade: grade}
		if grade != stop.FlowUnknown {
			f.There, f.Signs = 3, []string{"passed"}
		}
		return []stop.Fed{{Previous: all[i], Flow: f}}
	}
	for name, tt := range map[string]struct {
		told []([]stop.Fed) // by each watch; nil is an error
		want []string       // who is asked, by each of three questions
	}{
		"nothing, then certain":        {[][]stop.Fed{nil, told(1, stop.FlowCertain)}, []string{"21", "22", ""}},
		"unknown, then certain":        {[][]stop.Fed{told(1, stop.FlowUnknown), told(1, stop.FlowCertain)}, []string{"21", "22", ""}},
		"nothing, twice, then certain": {[][]stop.Fed{nil, nil, told(1, stop.FlowCertain)}, []string{"21", "", "22"}},
		"nothing, then whom it asked":  {[][]stop.Fed{nil, told(0, stop.FlowCertain), nil}, []string{"21", "", ""}},
		"nothing, then supported":      {[][]stop.Fed{nil, told(1, stop.FlowSupported), nil}, []string{"21", "", ""}},
		"supported":                    {[][]stop.Fed{told(1, stop.FlowSupported)}, []string{"22", "", ""}},
		"certain":                      {[][]stop.Fed{told(1, stop.FlowCertain)}, []string{"22", "", ""}},
		"not to be watched":            {nil, []string{"21", "", ""}},
		"nothing at all, three times":  {[][]stop.Fed{nil, nil, nil}, []string{"21", "", ""}},
		"nobody certain, three times":  {[][]stop.Fed{told(0, stop.FlowUnknown), nil, told(1, stop.FlowUnknown)}, []string{"21", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan string, 10)
			cfg := testConfig()
			cfg.Traceback.MaxPrevious = 1
			cfg.Traceback.Port = previousHosts(t, []string{"127.0.0.21", "127.0.0.22"}, func(host, _, _ string) string { asked <- host; return "" })
			watches := 0
			cfg.Flow = func(context.Context, stop.Token) ([]stop.Fed, error) {
				if watches++; watches > len(tt.told) {
					t.Error("watched once more")
					return nil, nil
				}
				if fed := tt.told[watches-1]; fed != nil {
					return fed, nil
				}
				return nil, errors.New("not now")
			}
			tb := NewTracebacks(nil, cfg)
			for i, want := range tt.want {
				f := stop.Finding{Token: stop.Token{byte(i)}, Type: stop.SVRec, Connection: stop.Connection{ID: 1}, Previous: all, Watchable: tt.told != nil}
				p := &promise{finding: f}
				p.records, p.plan, p.left = tb.plan(cfg, f)
				tb.follow(p, true)
				var all []string
				for len(asked) > 0 { // who does not answer is asked once more
					all = append(all, (<-asked)[len("127.0.0."):])
				}
				got := strings.Join(slices.Compact(all), " ")
				if got != want {
					t.Errorf("question %d: %q is asked, want %q", i+1, got, want)
				}
				if records := p.due(); i > 0 && got == "" && !slices.ContainsFunc(records, func(r stop.Traceback) bool { return r.Asked && r.SameAs != "" }) {
					t.Errorf("question %d refers to no answer: %s", i+1, fmt.Sprint(records))
				}
			}
			if watches != len(tt.told) {
				t.Errorf("watched %d times", watches)
			}
		})
	}
}

// Who is a candidate since the first question, and is not certain, is not asked, and no record says that he was.
func TestWatchAgainOfAnother(t *testing.T) {
	all := []stop.Previous{candidate("127.0.0.21:616", "127.0.0.1:22"), candidate("127.0.0.22:616", "127.0.0.1:22")}
	cfg := testConfig()
	cfg.Traceback.MaxPrevious = 1
	var mu sync.Mutex
	asked := map[string]bool{}
	cfg.Traceback.Port = previousHosts(t, []string{"127.0.0.21", "127.0.0.22"}, func(host, _, _ string) string {
		mu.Lock()
		defer mu.Unlock()
		asked[host] = true
		return ""
	})
	watches := 0
	told := stop.Flow{Grade: stop.FlowSupported, There: 3, Signs: []string{"passed"}}
	cfg.Flow = func(context.Context, stop.Token) ([]stop.Fed, error) {
		if watches++; watches == 1 {
			return nil, errors.New("not now")
		}
		return []stop.Fed{{Previous: all[1], Flow: told}}, nil
	}
	tb := NewTracebacks(nil, cfg)
	var records []stop.Traceback
	for i := range 2 {
		f := stop.Finding{Token: stop.Token{byte(i)}, Type: stop.SVRec, Connection: stop.Connection{ID: 1}, Previous: all[:1+i], Watchable: true}
		p := &promise{finding: f}
		p.records, p.plan, p.left = tb.plan(cfg, f)
		tb.follow(p, true)
		records = p.due()
	}
	mu.Lock()
	defer mu.Unlock()
	if watches != 2 || len(asked) != 1 || !asked["127.0.0.21"] {
		t.Errorf("watched %d times, asked %v", watches, asked)
	}
	for i, r := range records {
		if want := i == 0; r.Asked != want || (r.SameAs != "") != want || !r.Sent.IsZero() != want {
			t.Errorf("record of %v: %+v", r.Previous, r)
		}
	}
	if f := records[1].Flow; f == nil || f.Grade != told.Grade {
		t.Errorf("what was told is lost: %v", f)
	}
}
