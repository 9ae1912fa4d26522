package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// TestChoose: for certain one alone is asked; else those of whom more is told, before others, and no more than may be.
func TestChoose(t *testing.T) {
	cfg := testConfig()
	cfg.Traceback.MaxPrevious = 2
	host := func(i int) stop.Previous { return candidate(fmt.Sprintf("192.0.2.%d:616", i), "127.0.0.1:22") }
	uncorroborated := host(5)
	uncorroborated.Corroborated = false
	fed := func(i int, grade string, there, back int) stop.Fed {
		return stop.Fed{Previous: host(i), Flow: stop.Flow{Grade: grade, There: there, Back: back, Signs: map[bool][]string{true: {"passed"}}[there+back > 0]}}
	}
	const passedBy = "flow not asked: another connection feeds the asked one"
	const bound = "bound not asked: too many candidates"
	for _, tt := range []struct {
		name string
		fed  []stop.Fed
		want [6]string // what selected each of five and of one who has no record yet, and why it is not asked
	}{
		{"nothing is told", nil, [6]string{"inbound", "inbound", bound, bound}},
		{"all unknown", []stop.Fed{fed(1, "unknown", 0, 0), fed(2, "unknown", 0, 0), fed(3, "unknown", 0, 0)}, [6]string{"inbound", "inbound", bound, bound}},
		{"certain", []stop.Fed{fed(1, "unknown", 0, 0), fed(2, "certain", 3, 0)}, [6]string{passedBy, "flow", passedBy, passedBy}},
		{"certain of one beyond the bound", []stop.Fed{fed(4, "certain", 3, 0)}, [6]string{passedBy, passedBy, passedBy, "flow"}},
		{"certain of one who may not be asked", []stop.Fed{fed(5, "certain", 3, 0)}, [6]string{passedBy, passedBy, passedBy, passedBy}},
		{"certain of one of too many", []stop.Fed{fed(9, "certain", 3, 0)}, [6]string{passedBy, passedBy, passedBy, passedBy, 5: "flow"}},
		{"supported of one of too many", []stop.Fed{fed(9, "supported", 3, 0)}, [6]string{"inbound", "inbound", bound, bound}},
		{"certain of one of too many who may not be asked", []stop.Fed{{Previous: stop.Previous{Ends: host(9).Ends, Corroborated: true, Elsewhere: true},
			Flow: stop.Flow{Grade: "certain"}}}, [6]string{passedBy, passedBy, passedBy, passedBy, 5: "flow not asked: its connection leaves the host from another network namespace"}},
		{"supported", []stop.Fed{fed(1, "unknown", 0, 0), fed(3, "supported", 1, 1), fed(4, "supported", 0, 3)}, [6]string{bound, bound, "flow", "flow"}},
		{"one is supported", []stop.Fed{fed(3, "supported", 1, 1)}, [6]string{"inbound", bound, "flow", bound}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tb := NewTracebacks(nil, cfg)
			f := stop.Finding{Type: stop.SVRec, SID: 7, Previous: []stop.Previous{host(1), host(2), host(3), host(4), uncorroborated}}
			p := &promise{finding: f}
			p.records, p.plan, p.left = tb.plan(cfg, f)
			p.choose(cfg, tt.fed)
			tt.want[4] = "inbound not asked: only the user's own word speaks for it"
			var got [6]string
			var asked []int
			for i, r := range p.records {
				got[i] = r.SelectedBy
				if r.Error != "" {
					got[i] += " " + r.Error
				}
				if r.Asked != (r.Request == "616 , 22 : SV_REC : 7" && r.Kind == "" && !r.Sent.IsZero()) {
					t.Errorf("record %d: %+v", i, r)
				}
				if r.Asked {
					asked = append(asked, i)
				}
				for _, f := range tt.fed {
					if f.Previous.Ends == r.Previous && (r.Flow == nil || !reflect.DeepEqual(*r.Flow, f.Flow)) {
						t.Errorf("record %d has %v of what was told, %v", i, r.Flow, f)
					}
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("records (-want +got):\n%s", d)
			}
			if d := cmp.Diff(asked, p.plan); d != "" {
				t.Errorf("asked (-) and plan (+):\n%s", d)
			}
		})
	}
}

// TestChooseOfMany: however it is chosen, of the candidates that have no record it is said how many they are.
func TestChooseOfMany(t *testing.T) {
	cfg := testConfig()
	cfg.Traceback.MaxPrevious = 2
	f := stop.Finding{Type: stop.SVRec, SID: 7}
	for i := range maxNotAsked + 2 + 7 {
		f.Previous = append(f.Previous, candidate(fmt.Sprintf("192.0.2.1:%d", i+1), "127.0.0.1:22"))
	}
	for name, tt := range map[string]struct {
		fed  []int // the first for certain, several are supported
		left int
	}{
		"nothing is told": {nil, 7}, "certain": {[]int{1}, 7}, "certain of the last": {[]int{maxNotAsked + 1}, 7}, "supported, the last": {[]int{maxNotAsked, maxNotAsked + 1}, 7},
		"certain of one without a record": {[]int{maxNotAsked + 5}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			p := &promise{finding: f}
			p.records, p.plan, p.left = NewTracebacks(nil, cfg).plan(cfg, f)
			var fed []stop.Fed
			for _, i := range tt.fed {
				grade := map[bool]string{true: stop.FlowCertain, false: stop.FlowSupported}[len(tt.fed) == 1]
				fed = append(fed, stop.Fed{Previous: f.Previous[i], Flow: stop.Flow{Grade: grade, There: 3, Signs: []string{"passed"}}})
			}
			p.choose(cfg, fed)
			said := 0
			for _, r := range (&promise{same: p, records: p.records, left: p.left}).due() {
				if _, more, found := strings.Cut(r.Error, "; and "); found {
					said++
					if want := fmt.Sprintf("%d more candidates, not asked", tt.left); more != want || r.Asked {
						t.Errorf("asked %t, says %q, not %q", r.Asked, more, want)
					}
				}
			}
			if said != 1 {
				t.Errorf("said %d times", said)
			}
		})
	}
}

// TestFlow: a process is watched after the reply, where that can tell anything, and whom it does not mean is not asked.
func TestFlow(t *testing.T) {
	for _, tt := range []struct {
		name       string
		watchable  bool
		candidates int
		grade      string
		err        error
		watched    int
		asked      int
	}{
		{"certain", true, 2, stop.FlowCertain, nil, 1, 1},
		{"supported", true, 2, stop.FlowSupported, nil, 1, 2},
		{"refused", true, 2, "", errors.New("refused"), 1, 2},
		{"not to be watched", false, 2, stop.FlowCertain, nil, 0, 2},
		{"certain of one of too many", true, 0, stop.FlowCertain, nil, 1, 1},
		{"supported of one of too many", true, 0, stop.FlowSupported, nil, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			asked := map[string]bool{}
			watched := 0
			replied := make(chan struct{})
			port := previousHosts(t, []string{"127.0.0.21", "127.0.0.22"}, func(host, from, line string) string {
				mu.Lock()
				defer mu.Unlock()
				asked[host] = true
				return ""
			})
			all := []stop.Previous{candidate("127.0.0.21:616", "127.0.0.1:22"), candidate("127.0.0.22:616", "127.0.0.1:22")}
			f := &fake{previous: func() []stop.Previous { return all[:tt.candidates] }, watchable: tt.watchable}
			cfg := testConfig()
			cfg.Traceback.Port = port
			cfg.Flow = func(_ context.Context, of stop.Token) ([]stop.Fed, error) {
				<-replied
				mu.Lock()
				defer mu.Unlock()
				watched++
				return []stop.Fed{{Previous: all[1], Flow: stop.Flow{Grade: tt.grade, There: 3}}}, tt.err
			}
			s := newServer(f, cfg)
			c := dialPipe(t, s, "127.0.0.9")
			token := tokenIn(t, "968 , 23", c.ask("968 , 23 : SV_REC : 7\r\n"))
			close(replied)
			c.Close()
			s.finish(t)
			io.Copy(io.Discard, c.r)
			if records, _ := f.lastKept(token); len(records) != max(tt.candidates, tt.asked) {
				t.Errorf("records: %+v", records)
			}
			mu.Lock()
			defer mu.Unlock()
			if watched != tt.watched || len(asked) != tt.asked || tt.asked > 0 && !asked["127.0.0.22"] {
				t.Errorf("watched %d times, asked %v", watched, asked)
			}
		})
	}
}
