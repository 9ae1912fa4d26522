package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// over waits until no intruder's process is left on any host, and no connection of theirs on b.
func (s *stage) over() {
	s.t.Helper()
	for _, h := range s.sites() {
		s.wait("wait for the intruders to have left "+h.Host.Name, func() (bool, error) {
			pids, err := processes(s.ctx, h.Host, intruders...)
			return len(pids) == 0, err
		})
	}
	s.wait("wait for the connections to be closed", func() (bool, error) {
		cs, err := connections(s.ctx, s.b.Host)
		return !slices.ContainsFunc(cs, func(c connection) bool {
			return s.of(s.a, c.remote.Addr()) || c.remote.Port() == victimPort
		}), err
	})
}

// askedOver is asked about a connection that is over.
func (s *stage) askedOver(typ string, c connection) report.Redeemed {
	s.t.Helper()
	return s.inTime(func() string {
		token, err := s.c.Stopctl(s.ctx, "request", "-type", typ, c.local.Addr().String(), strconv.Itoa(int(c.local.Port())), strconv.Itoa(int(c.remote.Port())))
		s.must(err)
		return token
	}, true)
}

// came checks that a report names one previous host alone, by a connection that is closed and remembered.
func (s *stage) came(r report.Redeemed, in connection) {
	s.t.Helper()
	s.named(r, in)
	for _, p := range r.Report.Previous {
		if !slices.Contains(p.Reasons, trace.ReasonRecorded) || !p.Corroborated || p.Direction != host.Inbound {
			s.t.Errorf("%s is named for %v, corroborated %v, direction %s", p.Remote, p.Reasons, p.Corroborated, p.Direction)
		}
	}
}

// processesOf are the processes of a report with a name.
func processesOf(r report.Report, name string) (found []trace.Process) {
	for _, p := range r.Processes {
		if p.Name == name {
			found = append(found, p)
		}
	}
	return found
}

// TestAllOver is rows 15 and 16: every hop of the chain is closed, all of its processes are gone, and it is found; also by daemons that were started
// anew since.
func TestAllOver(t *testing.T) {
	for name, typ := range map[string]string{"SV_REC": "SV_REC", "ID_REC": "ID_REC", "restarted": "SV_REC"} {
		t.Run(name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			session := s.shell()
			s.send(session, fmt.Sprintf("nc.traditional %s %d", s.c.Host.Addr(), victimPort))
			out := s.out(s.b, s.c)
			s.send(session, s.word)
			s.heard(s.c)
			in := s.in()
			s.must(session.Close())
			s.over()
			if name == "restarted" {
				for _, at := range []*site.Site{s.a, s.b} {
					s.restart(at, func() {})
					s.wait("wait for what it remembered before", func() (bool, error) {
						log, err := at.Daemon.Log()
						return strings.Contains(log, "is remembered again"), err
					})
				}
			}

			before := s.answered()
			r := s.askedOver(typ, out)
			s.came(r, in)
			c := r.Report.Connection
			if c == nil || c.Opened.IsZero() || !c.Closed.After(c.Opened) || c.Direction != host.Outbound || c.DirectionSource != host.FromRecorder || c.User != "mallory" {
				t.Fatalf("the connection is %+v", c)
			}
			if typ == "SV_REC" {
				if !slices.Equal(c.Owners, out.pids) {
					t.Errorf("owners are %v, not %v", c.Owners, out.pids)
				}
				for i, p := range r.Report.Processes {
					if p.PID > 1 && i < 3 && (p.Exited == nil || p.Exited.Before(p.Start)) {
						t.Errorf("process %d %q ended at %v", p.PID, p.Name, p.Exited)
					}
					if p.RUID != nil && slices.Contains(innocents, int(*p.RUID)) {
						t.Errorf("process %d %q is an innocent's", p.PID, p.Name)
					}
				}
				if n, b := processesOf(r.Report, "nc.traditional"), processesOf(r.Report, "bash"); len(n) != 1 || len(b) != 1 ||
					n[0].Via.By != trace.ByOwner || b[0].Via.By != trace.ByRecordedParent || n[0].Exe != "/usr/bin/nc.traditional" {
					t.Errorf("the processes are\n%s", report.Text(r.Report))
				}
			} else if len(r.Report.Processes) > 0 {
				t.Errorf("%s saved %d processes", typ, len(r.Report.Processes))
			}
			if d := cmp.Diff(map[string]int{"a": 1, "b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
			a := s.previousToken(s.a, r)
			if a.Report.Connection == nil || a.Report.Connection.Closed.IsZero() || a.Report.Request.Local != in.remote || a.Report.Request.Remote != in.local {
				t.Errorf("a saved %+v, for its closed connection %v", a.Report.Connection, in)
			}
			s.draws([]report.Redeemed{r, a}, fmt.Sprintf("a (%s) -> b (%s) -> %s\n", in.remote.Addr(), out.local.Addr(), out.remote.Addr()), "opened")
		})
	}
}

// TestLeftBehindAndConnecting is row 13, after the logout: what was left in the background connects when nobody
// is logged in any more.
func TestLeftBehindAndConnecting(t *testing.T) {
	for _, how := range []string{
		"setsid -f sh -c '%s' >/dev/null 2>&1 </dev/null",
		"nohup sh -c '%s' >/dev/null 2>&1 </dev/null &",
		"( ( exec setsid sh -c '%s' >/dev/null 2>&1 </dev/null & ) & )",
	} {
		t.Run(how[:6], func(t *testing.T) {
			s := theWorld(t).stage(t)
			session := s.shell()
			in := s.in()
			s.send(session, "mkfifo "+s.dir+"/go", fmt.Sprintf(how, fmt.Sprintf("read x <%s/go; echo %s | nc.traditional %s %d; read x <%s/go", s.dir, s.word, s.c.Host.Addr(), victimPort, s.dir)),
				"exit")
			s.must(session.Wait(s.ctx))
			s.wait("wait for the login to be over", func() (bool, error) {
				cs, err := connections(s.ctx, s.b.Host)
				return !slices.ContainsFunc(cs, func(c connection) bool { return s.of(s.a, c.remote.Addr()) }), err
			})
			_, err := s.b.Host.RunAs(s.ctx, "mallory", "sh", "-c", "echo >"+s.dir+"/go")
			s.must(err)
			s.heard(s.c)
			out := s.out(s.b, s.c)
			before := s.answered()
			r := s.asked("SV_REC", out, true)
			s.inBetween(r.Report, trail{out: out, names: []string{"nc.traditional", "sh", "bash"}})
			s.came(r, in)
			if d := cmp.Diff(map[string]int{"a": 1, "b": 1}, s.since(before)); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
		})
	}
}
