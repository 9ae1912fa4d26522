package integration

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// owners asks nmap for the owners of a host's services, as Dave Goldsmith found that ident daemons tell them: connect to a service, and
// ask whose the other end of that connection is.
func (s *stage) owners(of *site.Site, ports ...uint16) string {
	s.t.Helper()
	var list []string
	for _, p := range append(ports, 113) {
		list = append(list, fmt.Sprint(p))
	}
	// A library is where update-alternatives(1) would have linked it from.
	out, err := s.d.Host.RunAs(s.ctx, "mallory", "sh", "-c", `LD_LIBRARY_PATH=$(dirname /usr/lib/*/blas/libblas.so.3) exec nmap "$@"`, "sh",
		"--unprivileged", "-Pn", "-n", "-sT", "-p", strings.Join(list, ","), "--script", "auth-owners", of.Host.Addr().String())
	s.must(err)
	for _, p := range list {
		if !strings.Contains(string(out), p+"/tcp") || strings.Contains(string(out), "closed") {
			s.t.Fatalf("nmap did not find port %s open:\n%s", p, out)
		}
	}
	return string(out)
}

func TestOwnersOfServices(t *testing.T) {
	s := theWorld(t).stage(t)
	before, err := s.b.Answered(s.ctx)
	s.must(err)
	if out := s.owners(s.b, 22, echoPort, webPort); strings.Contains(out, "auth-owners") {
		t.Errorf("nmap learnt\n%s", out)
	}
	if after, err := s.b.Answered(s.ctx); err != nil || after != before {
		t.Errorf("%d answers were kept, %v", after-before, err)
	}
	// It does learn them from another daemon.
	s.must(s.g.Daemon.Stop(s.ctx))
	t.Cleanup(func() {
		if err := s.g.Run(context.Background()); err != nil {
			t.Error(err)
		}
	})
	other := s.on(s.g, "root", "oidentd", "-i", "-u", "0", "-g", "0")
	s.must(s.g.Host.WaitListen(s.ctx, 113))
	s.wait("wait until nmap has learnt by oidentd", func() (bool, error) { // it gives up on what takes seconds
		out := s.owners(s.g, 22, victimPort)
		return strings.Contains(out, "auth-owners: root") && strings.Contains(out, "auth-owners: victim"), nil
	})
	s.must(other.Stop(s.ctx))
}

// A user of a host whose clients are connected with services of b asks about all pairs of ports that such connections can
// have, as fast as he can. He learns of those that exist no more than of those that do not, nothing of him is kept beyond his
// allowance, and others are answered meanwhile.
func TestEveryPortAsked(t *testing.T) {
	services := []uint16{22} // every one of them has innocent clients on d
	limit := 10 * time.Minute
	if os.Getenv("STOPD_SOAK") != "" {
		services, limit = append(services, echoPort, webPort), 30*time.Minute
	}
	s := theWorld(t).stageFor(t, limit)
	s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
	s.connect(s.port)
	tr := s.through()
	all, err := connections(s.ctx, s.b.Host)
	s.must(err)
	before := s.load()
	began := time.Now()
	replies, served := 0, 0
	for _, service := range services {
		var inbound []string
		var at string // the address of b that they are connected with
		for _, c := range all {
			if c.local.Port() == service && s.of(s.d, c.remote.Addr()) && (at == "" || at == c.local.Addr().String()) {
				at = c.local.Addr().String()
				inbound = append(inbound, fmt.Sprint(c.remote.Port()))
			}
		}
		if len(inbound) == 0 {
			t.Fatalf("nobody is connected with port %d", service)
		}
		for _, port := range inbound {
			for _, typ := range []string{"ID", "SV", "ID_REC", "SV_REC"} {
				_, err := s.d.Stopctl(s.ctx, "request", "-type", typ, at, fmt.Sprint(service), port)
				failed(t, err, 4, "NO-USER")
			}
		}
		sweep := s.on(s.d, "mallory", "sweep", append([]string{at + ":113", "100", fmt.Sprint(service)}, inbound...)...)
		for done := false; !done; {
			r, tries := s.insist(s.c, tr)
			served++
			if tries != 1 || r.Report.Kind != report.KindSV || len(r.Report.Previous) != 1 || r.Report.Previous[0].Remote != tr.in.remote {
				t.Errorf("beside it, after %d tries, the report names %+v", tries, r.Report.Previous)
			}
			select {
			case <-sweep.Done():
				done = true
			default:
			}
		}
		log, err := sweep.Log()
		s.must(err)
		replies += s.nothingLearnt(log, len(inbound))
	}
	t.Logf("%d replies in %s; the victim's question was answered %d times meanwhile", replies, time.Since(began).Round(time.Second), served)
	s.clear()
	s.flat(before)
}

// nothingLearnt checks what a sweep printed, and returns how many replies it had. The pairs that exist are refused as those that do not
// exist; over the allowance both get tokens that stand for nothing.
func (s *stage) nothingLearnt(log string, inbound int) (replies int) {
	s.t.Helper()
	watched, done := 0, ""
	for line := range strings.Lines(log) {
		f := strings.Fields(line)
		switch {
		case f[0] == "done":
			done = line
		case f[0] != "watched":
		case f[2] == "USERID":
			watched++
			ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
			_, _, err := s.b.Redeem(ctx, f[len(f)-1])
			cancel()
			failed(s.t, err, 1, "nothing of it is in the log")
		default:
			watched++
			if strings.Join(f[2:], " ") != "ERROR NO-USER" {
				s.t.Errorf("a connection that exists is answered %q", line)
			}
		}
	}
	kinds := map[string]int{}
	for _, m := range replyKind.FindAllStringSubmatch(done, -1) {
		kinds[m[1]], _ = strconv.Atoi(m[2])
		replies += kinds[m[1]]
	}
	if replies != 65535 || kinds["ERROR NO-USER"]+kinds["USERID"] != replies || watched != inbound {
		s.t.Errorf("the sweep ended with %q after %d of %d connections", done, watched, inbound)
	}
	return replies
}

var replyKind = regexp.MustCompile(`'([A-Z -]+)': (\d+)`)
