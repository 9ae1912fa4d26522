package integration

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// A trail is what an intruder has laid through b.
type trail struct {
	// in and out are b's ends of the connections with the attacker and with the victim.
	in, out connection
	// names are those of the processes in between, besides those that all intruders' processes on b are.
	names []string
	// beside is true where intruders have processes on b that are not between the connections.
	beside bool
}

// through is the trail of a relay that has one connection with the attacker and one with the victim.
func (s *stage) through(names ...string) trail {
	s.t.Helper()
	s.heard(s.c)
	return trail{in: s.in(), out: s.out(s.b, s.c), names: names}
}

// scenario runs what an intruder does twice: once it is traced back to him, and once his host cannot be
// reached any more when the question comes; then nobody else may be named.
func scenario(t *testing.T, typ string, intrude func(*stage) trail) {
	theWorld(t).scenario(t, typ, intrude)
}

func (w *world) scenario(t *testing.T, typ string, intrude func(*stage) trail) {
	t.Run("linked", func(t *testing.T) {
		s := w.stage(t)
		tr := intrude(s)
		s.traced(typ, tr, true)
	})
	t.Run("unlinked", func(t *testing.T) {
		s := w.stage(t)
		tr := intrude(s)
		s.unlink()
		s.traced(typ, tr, false)
	})
}

// unlink takes the attacker's host off the network until the stage ends. Its connections stay.
func (s *stage) unlink() {
	s.t.Helper()
	s.unlinkOf(s.a)
}

// unlinkOf is unlink for another site.
func (s *stage) unlinkOf(at *site.Site) {
	s.t.Helper()
	s.must(at.Host.Unlink(s.ctx))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stageLimit)
		defer cancel()
		if err := at.Host.Link(ctx); err != nil {
			s.t.Error(err)
		}
	})
}

// request asks one site from another about the asked site's end of a connection, by the program, and
// returns the token. What /proc and BPF tell of the connection has to be the same.
func (s *stage) request(from *site.Site, typ string, c connection, flags ...string) string {
	s.t.Helper()
	s.alike(c)
	args := append([]string{"request", "-type", typ}, flags...)
	token, err := from.Stopctl(s.ctx, append(args, c.local.Addr().String(), strconv.Itoa(int(c.local.Port())), strconv.Itoa(int(c.remote.Port())))...)
	s.must(err)
	return token
}

// answered counts the answers of every site but b.
func (s *stage) answered() map[string]int {
	s.t.Helper()
	counts := map[string]int{}
	for _, o := range s.sites() {
		n, err := o.Answered(s.ctx)
		s.must(err)
		counts[o.Host.Name] = n
	}
	return counts
}

// asked has the victim ask b about its end of a connection, and returns what became of it. The daemon bounds how long it looks, and how long it
// waits for previous hosts, whose answers are awaited or not: where this machine was too slow for that, it is asked again. It asks
// previous hosts again only once the window of repetitions, two minutes, is over.
func (s *stage) asked(typ string, c connection, answers bool, flags ...string) report.Redeemed {
	s.t.Helper()
	return s.inTime(func() string { return s.request(s.c, typ, c, flags...) }, answers)
}

// inTime is asked with another way to ask, which returns b's token.
func (s *stage) inTime(ask func() string, answers bool) report.Redeemed {
	s.t.Helper()
	var r report.Redeemed
	s.wait("wait for a report that was made in time", func() (bool, error) {
		var err error
		if _, r, err = s.b.Traced(s.ctx, ask()); err != nil {
			return false, err
		}
		why := late(r, answers)
		if why != "" {
			if s.again++; s.again == 1 {
				s.t.Logf("asked again: %s", why)
			}
		}
		return why == "", nil
	})
	return r
}

// late says what of a report there was no time for, or of its trace-back where previous hosts answer; nothing where there was.
func late(r report.Redeemed, answers bool) string {
	for _, g := range r.Report.Gaps {
		for _, why := range []string{"deadline", "did not end in time", "did not end within", "asked for too often"} {
			if strings.Contains(g.Why, why) {
				return g.What + ": " + g.Why
			}
		}
	}
	for _, t := range r.Traceback {
		for _, why := range []string{"deadline exceeded", "i/o timeout", "no answer before this was recorded"} {
			if answers && strings.Contains(t.Error, why) {
				return t.Error
			}
		}
		if strings.Contains(t.Error, "its reply had not left") {
			return t.Error
		}
	}
	return ""
}

// since returns how many answers each site gave since, if any, to what was asked once.
func (s *stage) since(before map[string]int) map[string]int {
	s.t.Helper()
	more := map[string]int{}
	for name, n := range s.answered() {
		n -= before[name]
		switch {
		case s.again == 0:
		case name == "b":
			n -= s.again
		default: // which b has asked again at most as often
			n = max(min(n, 1), n-s.again)
		}
		if n > 0 {
			more[name] = n
		}
	}
	return more
}

// traced has the victim ask b about its connection, and checks what b saved, whom it asked and what they
// saved.
func (s *stage) traced(typ string, tr trail, linked bool) {
	s.t.Helper()
	before := s.answered()
	r := s.asked(typ, tr.out, linked)
	if typ == "SV_REC" {
		s.inBetween(r.Report, tr)
	} else if len(r.Report.Processes) > 0 {
		s.t.Errorf("%s saved %d processes", typ, len(r.Report.Processes))
	}
	s.named(r, tr.in)
	want := map[string]int{"b": 1}
	if linked {
		want["a"] = 1
	}
	if d := cmp.Diff(want, s.since(before)); d != "" {
		s.t.Errorf("answers by host (-want +got):\n%s", d)
	}
	path := fmt.Sprintf("b (%s) -> %s\n", tr.out.local.Addr(), tr.out.remote.Addr())
	if !linked {
		for _, t := range r.Traceback {
			if t.Kind != "none" || t.Error == "" {
				s.t.Errorf("the attacker's host has no link and answered %+v", t)
			}
		}
		s.draws([]report.Redeemed{r}, fmt.Sprintf("%s -> %s", tr.in.remote.Addr(), path), "missing")
		return
	}
	a := s.previousToken(s.a, r)
	q := a.Report.Request
	if q.Local != tr.in.remote || q.Remote != tr.in.local || q.Requester != tr.in.local.Addr() || q.Type != typ || q.SID != r.Report.Request.SID {
		s.t.Errorf("a was asked %+v, for b's connection %v", q, tr.in)
	}
	s.draws([]report.Redeemed{r, a}, fmt.Sprintf("a (%s) -> %s", tr.in.remote.Addr(), path), "opened")
}

// inBetween checks that b's report has the processes that pass on what the intruder says, and none of those
// who have nothing to do with it.
func (s *stage) inBetween(r report.Report, tr trail) {
	s.t.Helper()
	var names []string
	pids := map[int]bool{}
	for _, p := range r.Processes {
		names = append(names, p.Name)
		pids[p.PID] = true
		if p.RUID != nil && slices.Contains(innocents, int(*p.RUID)) && !tr.beside {
			s.t.Errorf("process %d %q of uid %d has nothing to do with it", p.PID, p.Args, *p.RUID)
		}
	}
	left := slices.Clone(names)
	for _, n := range tr.names {
		i := slices.Index(left, n)
		if i < 0 {
			s.t.Errorf("no process %q in the report, or not as often; there are %q", n, names)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	if r.Connection == nil {
		s.t.Fatalf("no connection was found:\n%s", report.Text(r))
	}
	if !slices.ContainsFunc(tr.out.pids, func(pid int) bool { return slices.Contains(r.Connection.Owners, pid) }) || len(r.Connection.Owners) != len(tr.out.pids) {
		s.t.Errorf("owners are %v, want %v", r.Connection.Owners, tr.out.pids)
	}
	if tr.beside {
		return
	}
	theirs, err := processes(s.ctx, s.b.Host, intruders...)
	s.must(err)
	for _, pid := range theirs {
		if !pids[pid] {
			s.t.Errorf("process %d of the intruder is not in the report: %v", pid, names)
		}
	}
}

// named checks that b's report names the attacker's host and no other, and that it alone was asked.
func (s *stage) named(r report.Redeemed, in connection) {
	s.t.Helper()
	for _, p := range r.Report.Previous {
		if p.Remote.Addr() != in.remote.Addr() {
			s.t.Errorf("%s is named, for %v: it has nothing to do with it", p.Remote, p.Reasons)
		}
	}
	want := []stop.Ends{{Remote: in.remote, Local: in.local}}
	if d := cmp.Diff(want, askedOf(r), cmp.Comparer(func(a, b stop.Ends) bool { return a == b })); d != "" {
		s.t.Errorf("asked (-want +got):\n%s", d)
		s.t.Log(report.Text(r.Report))
	}
}

// askedOf returns the connections that previous hosts were asked about.
func askedOf(r report.Redeemed) []stop.Ends {
	var asked []stop.Ends
	for _, t := range r.Traceback {
		if t.Asked {
			asked = append(asked, t.Previous)
		}
	}
	return asked
}

// previousToken redeems, on the one host that was asked, the token that it gave.
func (s *stage) previousToken(on *site.Site, r report.Redeemed) report.Redeemed {
	s.t.Helper()
	for _, t := range r.Traceback {
		if t.Asked && s.of(on, t.Previous.Remote.Addr()) {
			if t.Kind != "token" {
				s.t.Fatalf("%s answered %+v", on.Host.Name, t)
			}
			_, p, err := on.Redeem(s.ctx, t.Token)
			s.must(err)
			return p
		}
	}
	s.t.Fatalf("%s was not asked: %+v", on.Host.Name, r.Traceback)
	return report.Redeemed{}
}

// draws checks the chain that redeemed reports make: one path, with these hosts, and a word that its text
// has to hold.
func (s *stage) draws(rs []report.Redeemed, path, word string) {
	s.t.Helper()
	c := chain.Build(chain.Of(rs...))
	for _, x := range c.Contradictions {
		s.t.Errorf("honest hosts contradict each other: %+v", x)
	}
	text := chain.Text(c)
	if !strings.HasPrefix(text, path) || strings.Count(text, "the host that was reached") != 1 || !strings.Contains(text, word) {
		s.t.Errorf("the chain is not %q, or has no %q:\n%s", path, word, text)
	}
}
