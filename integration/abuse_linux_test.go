package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// floodRequests is how many requests a flood has: STOPD_SOAK is a thousandth of them.
func floodRequests(t *testing.T) int {
	t.Helper()
	if os.Getenv("STOPD_SOAK") == "" {
		return 10000
	}
	return 1000 * soakTraces(t)
}

// A load is what the processes of b's daemon take of its host, together.
type load struct{ kilobytes, descriptors int }

// front returns the process of b's daemon that accepts strangers.
func (s *stage) front() string {
	s.t.Helper()
	out, err := s.b.Host.Run(s.ctx, "pgrep", "-x", "-f", "stopd front")
	s.must(err)
	return strings.TrimSpace(string(out))
}

// daemonProcesses are the supervisor and those that it started, for a shell: the collector's may be about to become programs.
const daemonProcesses = "$(pgrep -o -x stopd) $(pgrep -P $(pgrep -o -x stopd))"

func (s *stage) load() (l load) {
	s.t.Helper()
	out, err := s.b.Host.Run(s.ctx, "sh", "-c", "for p in "+daemonProcesses+"; do grep VmRSS /proc/$p/status; ls /proc/$p/fd | wc -l; done")
	s.must(err)
	f := strings.Fields(string(out))
	if len(f) != 5*4 { // VmRSS: 1 kB 2
		s.t.Fatalf("load of b: %q", out)
	}
	for ; len(f) > 0; f = f[4:] {
		kilobytes, err := strconv.Atoi(f[1])
		descriptors, err2 := strconv.Atoi(f[3])
		s.must(errors.Join(err, err2))
		l.kilobytes, l.descriptors = l.kilobytes+kilobytes, l.descriptors+descriptors
	}
	return l
}

// pooled is more than the netlink sockets that the daemon keeps for its next look-ups (internal/linux, maxFree in each namespace).
const pooled = 32

// flat checks that a daemon that was loaded holds no more than before, but for what Go keeps of memory.
func (s *stage) flat(before load) {
	s.t.Helper()
	var after load
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	err := netlab.WaitFor(ctx, func() (bool, error) {
		after = s.load()
		return after.descriptors <= before.descriptors+pooled, nil
	})
	if err != nil {
		out, _ := s.b.Host.Run(context.Background(), "sh", "-c", "for p in "+daemonProcesses+"; do ls -l /proc/$p/fd; done")
		s.t.Fatalf("wait for the descriptors of before: %v; they are\n%s", err, out)
	}
	s.t.Logf("before %+v, after %+v", before, after)
	if after.kilobytes > before.kilobytes+96<<10 {
		s.t.Errorf("%d KB more than before", after.kilobytes-before.kilobytes)
	}
}

// insist asks about a trail until there is a whole report, from a host whose connections somebody else of it may
// use up. It returns how often it asked.
func (s *stage) insist(from *site.Site, tr trail) (report.Redeemed, int) {
	s.t.Helper()
	for tries := 1; ; tries++ {
		out, err := from.Stopctl(s.ctx, "request", "-type", "SV_REC", s.b.Host.Addr().String(), fmt.Sprint(tr.out.local.Port()), fmt.Sprint(tr.out.remote.Port()))
		if err == nil {
			_, r, err := s.b.Redeem(s.ctx, strings.TrimSpace(out))
			if err == nil && r.Report.Kind == report.KindSV {
				return r, tries
			}
		}
		if s.ctx.Err() != nil {
			s.t.Fatalf("asked %d times: %q, %v", tries, out, err)
		}
	}
}

// Users of another host and of the victim's own ask at full speed about everything. The victim's question is answered
// and followed; the daemon holds no more than before.
func TestFlooded(t *testing.T) {
	n := floodRequests(t)
	s := theWorld(t).stageFor(t, stageLimit+time.Duration(n)*time.Millisecond)
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	before := s.load()
	to := fmt.Sprintf("%s:113", s.b.Host.Addr())
	var floods []*netlab.Daemon
	for i, h := range []*site.Site{s.d, s.c} {
		floods = append(floods, s.on(h, "mallory", "flood", to, "100", fmt.Sprint(n/2), "0", fmt.Sprint(7000*i), "", "SV", "SV_REC:7", "ID:192.0.2.9"))
	}
	for _, f := range floods {
		s.wait("wait for the flood", func() (bool, error) {
			log, err := f.Log()
			return strings.Contains(log, "answered"), err
		})
	}
	asked, most := 0, 0
	var slowest time.Duration
	for ended := 0; ended < len(floods); {
		began := time.Now()
		r, tries := s.insist(s.c, tr)
		slowest = max(slowest, time.Since(began)/time.Duration(tries))
		asked, most = asked+1, max(most, tries)
		if len(r.Report.Previous) != 1 || r.Report.Previous[0].Remote != tr.in.remote {
			t.Errorf("named are %+v, want %v alone", r.Report.Previous, tr.in.remote)
		}
		ended = 0
		for _, f := range floods {
			select {
			case <-f.Done():
				ended++
			default:
			}
		}
	}
	for _, f := range floods {
		if log, err := f.Log(); err != nil || !strings.Contains(log, "done") {
			t.Errorf("the flood ended with %v: %q", err, log)
		}
	}
	t.Logf("%d requests; meanwhile %d questions of the victim's, at most %d tries, a try and its redemption at most %s", n, asked, most, slowest)
	if slowest > 30*time.Second { // who asks waits 10
		t.Errorf("one took %s", slowest)
	}
	s.flat(before)
}

// Five thousand connections that say nothing, say half a line or have closed their side, from users who connect again
// when they are hung up on.
func TestManyIdleClients(t *testing.T) {
	s := theWorld(t).stage(t)
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	before := s.load()
	to := fmt.Sprintf("%s:113", s.b.Host.Addr())
	for _, h := range []*site.Site{s.a, s.d, s.g} {
		s.on(h, "mallory", "sh", "-c", fmt.Sprintf("ulimit -n 4000; exec clients %[1]s:800 %[1]s:800:12", to))
	}
	s.wait("wait for the clients", func() (bool, error) {
		n := 0
		cs, err := connections(s.ctx, s.b.Host)
		for _, c := range cs {
			if c.local.Port() == 113 {
				n++
			}
		}
		return n >= 300, err
	})
	for range 3 {
		r, tries := s.insist(s.c, tr)
		if tries != 1 || len(r.Report.Previous) != 1 || r.Report.Previous[0].Remote != tr.in.remote {
			t.Errorf("after %d tries named are %+v", tries, r.Report.Previous)
		}
	}
	if l := s.load(); l.descriptors > before.descriptors+1200 {
		t.Errorf("%d descriptors", l.descriptors)
	}
	s.clear()
	s.flat(before)
}

// Where no descriptor is left, whoever is idle makes room, and the daemon goes on.
func TestDescriptorsExhausted(t *testing.T) {
	s := theWorld(t).stage(t)
	c := s.carols()
	before := s.load()
	front := s.front()
	// Who has not CAP_SYS_RESOURCE in the lab limits processes of his own (prlimit(2)).
	asFront := func(args ...string) string {
		out, err := s.b.Host.Run(s.ctx, "sh", append([]string{"-c", `u=$(awk '/^Uid:/ {print $2}' /proc/$0/status); g=$(awk '/^Gid:/ {print $2}' /proc/$0/status)
			exec setpriv --reuid $u --regid $g --clear-groups prlimit --pid $0 "$@"`, front}, args...)...)
		s.must(err)
		return string(out)
	}
	limit := func(n string) {
		asFront("--nofile=" + n)
	}
	open, err := s.b.Host.Run(s.ctx, "sh", "-c", "ls /proc/"+front+"/fd | wc -l")
	s.must(err)
	descriptors, err := strconv.Atoi(strings.TrimSpace(string(open)))
	s.must(err)
	old := asFront("--nofile", "--noheadings", "--output", "SOFT,HARD")
	f := strings.Fields(old)
	if len(f) != 2 {
		t.Fatalf("limits of stopd: %q", old)
	}
	t.Cleanup(func() { s.ctx = context.Background(); limit(f[0] + ":" + f[1]) })
	limit(fmt.Sprintf("%d:%s", descriptors+16, f[1]))
	for _, h := range []*site.Site{s.d, s.g} {
		s.on(h, "mallory", "clients", fmt.Sprintf("%s:113:100", s.b.Host.Addr()))
	}
	s.wait("wait for the daemon to run out of descriptors", func() (bool, error) {
		log, err := s.b.Daemon.Log()
		return strings.Contains(log, "too many open files"), err
	})
	s.wait("wait for an answer", func() (bool, error) {
		_, err := s.c.Stopctl(s.ctx, "request", "-type", "ID", s.b.Host.Addr().String(), fmt.Sprint(c.local.Port()), fmt.Sprint(c.remote.Port()))
		return err == nil, nil
	})
	limit(f[0] + ":" + f[1])
	s.clear()
	_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", c))
	s.must(err)
	if r.Report.Kind != report.KindSV || r.Report.Connection.User != "carol" {
		t.Errorf("afterwards the report is %+v", r.Report.Connection)
	}
	s.flat(before)
}
