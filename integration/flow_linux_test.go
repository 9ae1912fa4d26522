package integration

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/internal/netlab/site"
	"github.com/stopd/stopd/report"
)

// Who is a client of a relay: the intruder with one connection that talks and one that is silent, and others.
const othersTalking, othersSilent = 40, 10

// A client is one connection through a relay: b's ends of how it comes in, and of how it goes on.
type client struct {
	in    stop.Ends
	out   connection
	talks bool
}

// An outcome is what came of a question about a client's connection.
type outcome string

const (
	outcomeRight   outcome = "he alone"        // he alone was asked
	outcomeFirst   outcome = "he before all"   // several were asked, and more speaks for him than for anybody else
	outcomeUnknown outcome = "nothing is told" // candidates are asked within the bound
	outcomeMisled  outcome = "another first"   // several were asked, and as much or more speaks for another
	outcomeWrong   outcome = "another alone"
)

var outcomes = []outcome{outcomeRight, outcomeFirst, outcomeUnknown, outcomeMisled, outcomeWrong}

// A relayed is the trial of one program.
type relayed struct {
	*stage
	program
	talking, silent []client // the intruder's first
	// crowd is true where there are too many to be candidates.
	crowd bool
}

// relayed has the intruder and others go through a program.
func (s *stage) relayed(p program) *relayed {
	s.t.Helper()
	s.busy = true // no two looks are alike
	// On a busy machine a second is little for watching and asking, one after the other.
	s.configure("timeout", `timeout = "4s"`, `timeout = "1s"`)
	s.configure("window", `window = "1s"`, `window = "2m0s"`)
	s.on(s.c, "mallory", "answer", fmt.Sprint(s.port+1))
	s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
	p.start(s)
	s.listening(s.port)
	var speaks []string
	if p.speaks != nil {
		speaks = p.speaks(s)
	}
	r := &relayed{stage: s, program: p}
	known := map[netip.AddrPort]bool{}
	chatter := func(at *site.Site, talking, silent int) []client {
		s.on(at, "mallory", "chatter", append(speaks, fmt.Sprintf("%s:%d", s.b.Host.Addr(), s.port), fmt.Sprint(talking), fmt.Sprint(silent))...)
		return r.new(known, talking+silent, talking > 0)
	}
	r.talking, r.silent = chatter(s.a, 1, 0), chatter(s.a, 0, 1)
	r.silent = append(r.silent, chatter(s.d, 0, othersSilent)...)
	r.talking = append(r.talking, chatter(s.d, othersTalking, 0)...)
	return r
}

// new waits until the victim knows so many more clients, and returns them.
func (r *relayed) new(known map[netip.AddrPort]bool, want int, talks bool) (cs []client) {
	r.t.Helper()
	r.wait(fmt.Sprintf("wait for %d clients of %s", want, r.name), func() (bool, error) {
		cs = nil
		text, err := r.c.Host.ReadFile(fmt.Sprintf("/tmp/answered-%d", r.port+1))
		for line := range strings.Lines(string(text)) {
			var out, in string
			if n, _ := fmt.Sscan(line, &out, &in); n != 2 || !strings.HasSuffix(line, "\n") {
				return false, nil
			}
			local, remote := netip.MustParseAddrPort(out), netip.MustParseAddrPort(in)
			if !known[remote] {
				cs = append(cs, client{stop.Ends{Remote: remote, Local: netip.AddrPortFrom(r.b.Host.Addr(), r.port)},
					connection{local: local, remote: netip.MustParseAddrPort(r.answering())}, talks})
			}
		}
		return len(cs) == want, ignoreMissing(err)
	})
	for _, c := range cs {
		known[c.in.Remote] = true
	}
	return cs
}

// came tells what came of a question about a client's connection; nothing where that was too late.
func (r *relayed) came(c client, token string) (report.Redeemed, outcome) {
	r.t.Helper()
	_, red, err := r.b.Traced(r.ctx, token)
	r.must(err)
	if why := late(red, false); why != "" {
		return red, ""
	}
	o := r.judge(red, c.in)
	if o == outcomeWrong {
		r.t.Errorf("another than %v is asked: %+v", c.in, askedOf(red))
		for _, t := range red.Traceback {
			if t.Flow != nil && t.Flow.Grade != stop.FlowUnknown {
				r.t.Logf("%v: %+v", t.Previous, t.Flow)
			}
		}
	}
	return red, o
}

// question asks about a client's connection, and returns the token. Of a crowd it waits until it is kept what became of that: before, nothing tells whether anybody is to
// be asked.
func (r *relayed) question(c client) string {
	r.t.Helper()
	before := r.kept()
	token := r.request(r.c, "SV_REC", c.out)
	if r.crowd {
		r.wait("wait until it is kept who was asked", func() (bool, error) { return r.kept() > before, nil })
	}
	return token
}

// kept counts b's trace-backs.
func (r *relayed) kept() int {
	r.t.Helper()
	out, err := r.b.Stopctl(r.ctx, "list", "-store", site.Store)
	r.must(err)
	return strings.Count(out, " traceback ")
}

func (r *relayed) judge(red report.Redeemed, right stop.Ends) outcome {
	r.t.Helper()
	asked := askedOf(red)
	if len(asked) == 1 {
		if asked[0] == right {
			return outcomeRight
		}
		return outcomeWrong
	}
	if len(asked) > 8 { // traceback.max_previous
		r.t.Errorf("%d hosts are asked", len(asked))
	}
	var his *stop.Flow
	more := 0 // than for him, or as much
	for _, t := range red.Traceback {
		if t.Previous == right {
			his = t.Flow
		}
	}
	for _, t := range red.Traceback {
		if t.Flow.Compare(nil) > 0 && t.Previous != right && t.Flow.Compare(his) >= 0 {
			more++
		}
	}
	switch {
	case more > 0:
		return outcomeMisled
	case his.Compare(nil) > 0:
		return outcomeFirst
	}
	return outcomeUnknown
}

// A tally counts what came of questions.
type tally map[outcome]int

func (t tally) String() string {
	var b strings.Builder
	n := 0
	for _, o := range outcomes {
		n += t[o]
	}
	fmt.Fprintf(&b, "%d", n)
	for _, o := range outcomes {
		fmt.Fprintf(&b, " | %d", t[o])
	}
	return b.String()
}

// perBatch is how many questions are asked at once: those that have a process watched one after the other, within half of the time for
// a trace-back.
const perBatch = 3

// ask asks about clients, some at once, and counts what came of it by whether they talk. What came too late does not count, and is asked again.
func (r *relayed) ask(cs []client) map[bool]tally {
	r.t.Helper()
	t := map[bool]tally{true: {}, false: {}}
	for len(cs) > 0 && !r.t.Failed() {
		batch := cs[:min(perBatch, len(cs))]
		cs = cs[len(batch):]
		var tokens []string
		for _, c := range batch {
			tokens = append(tokens, r.request(r.c, "SV_REC", c.out))
		}
		for i, c := range batch {
			if _, o := r.came(c, tokens[i]); o == "" {
				cs = append(cs, c)
			} else {
				t[c.talks][o]++
			}
		}
	}
	return t
}

// Of many who use a program he is told from the others as well as can be, and nobody is taken for him (thesis section 4.1.2). What it says at
// the end is the table in docs/support.md.
func TestRelayOfMany(t *testing.T) {
	talking, silent := 2, 2
	if os.Getenv("STOPD_SOAK") != "" {
		talking, silent = 1+othersTalking, 1+othersSilent
	}
	var lines []string
	for _, p := range relayPrograms {
		t.Run(p.name, func(t *testing.T) {
			s := theWorld(t).stageFor(t, stageLimit+time.Duration(talking+silent)*10*time.Second)
			r := s.relayed(p)
			r.caught()
			tallies := r.ask(slices.Concat(r.talking[1:talking], r.silent[:silent]))
			for _, talks := range []bool{true, false} {
				lines = append(lines, fmt.Sprintf("| %s | %s | %v |", p.name, map[bool]string{true: "all talk", false: "he is silent"}[talks], tallies[talks]))
			}
		})
	}
	t.Logf("of how many: %q\n%s", outcomes, strings.Join(lines, "\n"))
}

// caught asks about the intruder's connection that talks until he is told as well as he can be; sooner or later it is seen.
func (r *relayed) caught() {
	r.t.Helper()
	in := r.talking[0].in
	var answered []string // who has answered something since it was asked; how often is up to who had to ask twice
	var red report.Redeemed
	asks := 0
	r.wait("wait until he is told", func() (bool, error) {
		asks++
		before := r.answered()
		var o outcome
		red, o = r.came(r.talking[0], r.question(r.talking[0]))
		answered = nil
		for name, n := range r.answered() {
			if n > before[name] {
				answered = append(answered, name)
			}
		}
		slices.Sort(answered)
		his := slices.IndexFunc(red.Traceback, func(t stop.Traceback) bool { return t.Previous == in })
		told := r.grade == "" || his >= 0 && red.Traceback[his].Flow != nil && red.Traceback[his].Flow.Grade == r.grade
		// His host may be too late, and is asked again then.
		token := r.grade == stop.FlowSupported || his >= 0 && red.Traceback[his].Asked && red.Traceback[his].Kind == "token"
		return told && token && (o == outcomeRight || o == outcomeFirst) || r.t.Failed(), nil
	})
	if r.t.Failed() {
		return
	}
	for _, tb := range red.Traceback {
		if his := tb.Previous == in; tb.Flow != nil && (his && (!tb.Asked || tb.SelectedBy != "flow" || tb.Flow.Grade != r.grade) || !his && tb.Flow.Grade == stop.FlowCertain) {
			r.t.Errorf("%+v, %+v", tb, tb.Flow)
		}
	}
	if r.grade == stop.FlowSupported {
		return
	}
	// Who was asked before he was told may answer as late as now.
	if d := cmp.Diff([]string{"a", "b"}, answered); d != "" && asks == 1 {
		r.t.Errorf("hosts that answered (-want +got):\n%s", d)
	}
	a := r.previousToken(r.a, red)
	path := fmt.Sprintf("a (%s) -> b (%s) -> %s\n", in.Remote.Addr(), r.talking[0].out.local.Addr(), r.c.Host.Addr())
	if text := chain.Text(chain.Build(chain.Of(red, a))); !strings.HasPrefix(text, path) {
		r.t.Errorf("the chain is not %q:\n%s", path, text)
	}
}

// Of more hosts than may be candidates nobody is asked, but for the one who is certain.
func TestRelayOfTooMany(t *testing.T) {
	s := theWorld(t).stage(t)
	s.configure("hub", "hub = 1", "hub = 16")
	r := s.relayed(relayPrograms[len(relayPrograms)-1])
	r.crowd = true
	r.caught()
	for _, c := range r.silent[:3] { // also his own: that it began when no other host had a connection does not name him beside so many
		red, o := r.came(c, r.question(c))
		if asked := askedOf(red); len(asked) > 0 || o == outcomeWrong {
			t.Errorf("of %v there are asked %v", c, asked)
		}
		if !hasGap(red.Report.Gaps, "more than 1 hosts") {
			t.Errorf("gaps are %v", red.Report.Gaps)
		}
	}
}
