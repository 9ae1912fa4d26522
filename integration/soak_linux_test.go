package integration

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/report"
)

// soakTraces is how many traces a soak test takes: a tenth of what `make soak` does.
func soakTraces(t *testing.T) int {
	t.Helper()
	v := os.Getenv("STOPD_SOAK")
	if v == "" {
		return 100
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("STOPD_SOAK=%q: not a number of traces", v)
	}
	return n
}

// Processes come and go by the hundred in a second, the intruder's as well as others', and get each other's pids
// again at once. Whoever is named must have to do with it, in every trace.
func TestSoak(t *testing.T) {
	n := soakTraces(t)
	s := theWorld(t).stageFor(t, stageLimit+time.Duration(n)*time.Second)
	s.busy = true
	const first = 20000
	reuse := s.on(s.b, "root", "reuse", strconv.Itoa(first))
	t.Cleanup(func() {
		if err := reuse.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.wait("wait for a pid to be used again", func() (bool, error) {
		log, err := reuse.Log()
		return strings.Contains(log, "again"), err
	})
	// A service that starts a program for each client, and its clients, who come back as soon as they were served.
	s.beside("web", "socat", fmt.Sprintf("TCP-LISTEN:%d,reuseaddr,fork,backlog=64", s.port+1), "EXEC:/bin/true")
	s.listening(s.port + 1)
	clients, err := s.d.Host.StartAs("dave", "clients", fmt.Sprintf("b:%d:8:hello", s.port+1))
	s.must(err)
	s.script("nc.traditional -l -p %d | flicker | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	used := map[int]map[string]bool{} // by pid: when the processes that had it began
	taken, met, again, short := 0, 0, 0, 0
	for taken < n || met == 0 || again == 0 { // until they show something
		_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", tr.out))
		if err != nil {
			t.Fatalf("%v, after %d traces that met %d processes that come and go, and %d pids as several", err, taken, met, again)
		}
		if why := late(r, false); why != "" {
			short++
			t.Log(why)
			continue
		}
		taken++
		met += s.soaked(r.Report, tr)
		for _, p := range r.Report.Processes {
			if used[p.PID] == nil {
				used[p.PID] = map[string]bool{}
			}
			starts := len(used[p.PID])
			used[p.PID][fmt.Sprint(p.Start)] = true
			if starts == 1 && len(used[p.PID]) == 2 {
				again++
			}
		}
		if t.Failed() {
			t.Log(report.Text(r.Report))
			break
		}
	}
	s.must(clients.Stop(s.ctx))
	t.Logf("%d traces met %d processes that come and go; %d pids were met as several processes; for %d more there was too little time", taken, met, again, short)
}

// soaked checks one report, and counts the processes in it that come and go.
func (s *stage) soaked(r report.Report, tr trail) int {
	s.t.Helper()
	names := map[string]int{}
	for _, p := range r.Processes {
		names[p.Name]++
		if p.PID > 1 && p.RUID != nil && *p.RUID != uint32(users["mallory"]) {
			s.t.Errorf("process %d (%s) of user %d is in the report", p.PID, p.Name, *p.RUID)
		}
		if len(p.Args) > 0 && p.Name == "true" && !slices.Equal(p.Args, []string{"true"}) {
			s.t.Errorf("process %d is a mix: %q runs %q", p.PID, p.Name, p.Args)
		}
	}
	if names["nc.traditional"] != 2 || names["flicker"] == 0 {
		s.t.Errorf("the relay is not in the report: %v", names)
	}
	if len(r.Previous) != 1 || r.Previous[0].Remote != tr.in.remote {
		s.t.Errorf("named are %+v, want %v alone", r.Previous, tr.in.remote)
	}
	return names["flicker"] - 1 + names["true"]
}
