package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/report"
)

// hostile has the attacker's host answer as it likes.
func (s *stage) hostile(args ...string) (log func() string) {
	s.t.Helper()
	s.must(s.a.Daemon.Stop(s.ctx))
	s.t.Cleanup(func() {
		if err := s.a.Run(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	d := s.on(s.a, "root", "hostile", args...)
	s.t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	s.must(s.a.Host.WaitListen(s.ctx, 113))
	return func() string {
		s.t.Helper()
		text, err := d.Log()
		s.must(err)
		return text
	}
}

// Whatever the previous host answers, it is asked once, its own connection is the one that is named, and what it said is in the
// record as far as it was a reply.
func TestHostilePreviousHost(t *testing.T) {
	first, second := "s"+strings.Repeat("a", 52), "s"+strings.Repeat("q", 52)
	for _, tt := range []struct {
		mode, kind, token, reason string
	}{
		{"two", "token", first, ""},
		{"trickle", "none", "", "deadline exceeded"},
		{"endless", "none", "", "longer than 1200 octets"},
		{"control", "none", "", `X\\x1b[2J\\a`},
		{"reset", "none", "", ""},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			s := theWorld(t).stage(t)
			log := s.hostile(tt.mode)
			tr := s.intrude()
			r := s.asked("SV_REC", tr.out, tt.mode != "trickle")
			s.inBetween(r.Report, tr)
			s.named(r, tr.in)
			a := r.Traceback[0]
			if a.Kind != tt.kind || a.Token != tt.token || !strings.Contains(a.Error, tt.reason) {
				t.Errorf("the record is %+v", a)
			}
			if text := a.Error + a.Reply; strings.Contains(text, second) || strings.ContainsAny(text, "\x1b\x07\n") || len(text) > 4096 {
				t.Errorf("the record has %q", text)
			}
			// A host that closes the connection is asked once more, as RFC 1413 has it.
			if n := strings.Count(log(), "asked "); n != 1 && (n != 2 || tt.mode != "reset") {
				t.Errorf("it was asked\n%s", log())
			}
		})
	}
}

// The previous host asks back about the connection by which it was asked: with the same session, and with another. It gets tokens, as
// anybody does who asks about a connection with himself, and sets off no question: the daemon is not followed into, so neither who asked it
// nor whom it asks is found.
func TestReflectedQuestion(t *testing.T) {
	s := theWorld(t).stage(t)
	log := s.hostile("reflect", s.b.Host.Addr().String())
	tr := s.intrude()
	before := s.answered()
	r := s.asked("SV_REC", tr.out, false)
	s.inBetween(r.Report, tr)
	s.named(r, tr.in)
	s.wait("wait for what is asked back", func() (bool, error) { return strings.Count(log(), "reflected ") == 2, nil })
	var tokens []string
	for line := range strings.Lines(log()) {
		if _, token, ok := strings.Cut(strings.TrimSpace(line), "USERID : OTHER : "); ok && strings.HasPrefix(line, "reflected ") {
			tokens = append(tokens, token)
		}
	}
	if len(tokens) != 2 || strings.Count(log(), "asked ") != 1 {
		t.Fatalf("the attacker's host says\n%s", log())
	}
	for _, token := range tokens {
		_, back, err := s.b.Traced(s.ctx, token)
		s.must(err)
		if len(back.Report.Previous) > 0 || len(back.Traceback) > 0 {
			t.Errorf("asked back, b names %+v and asks %+v", back.Report.Previous, back.Traceback)
		}
		for _, p := range back.Report.Processes {
			if p.PID != 1 && !strings.HasPrefix(p.Name, "stopd") {
				t.Errorf("asked back, b has process %d %q in its report", p.PID, p.Args)
			}
		}
	}
	if d := cmp.Diff(map[string]int{"b": 3}, s.since(before)); d != "" || strings.Count(log(), "asked ") != 1 {
		t.Errorf("answers by host (-want +got):\n%s\n%s", d, log())
	}
}

// The previous host answers with the token of an innocent host's report, which b got for a connection of its own. That host is not put on the path.
func TestOthersToken(t *testing.T) {
	s := theWorld(t).stage(t)
	innocent := func() connection {
		cs, err := connections(s.ctx, s.d.Host)
		s.must(err)
		bobs, err := processes(s.ctx, s.d.Host, "bob")
		s.must(err)
		for _, c := range cs {
			if c.remote.Port() == 22 && s.of(s.b, c.remote.Addr()) && len(c.pids) > 0 && slices.Contains(bobs, c.pids[0]) {
				return c
			}
		}
		t.Fatal("bob is not on b")
		return connection{}
	}()
	token := s.request(s.b, "SV", innocent)
	_, d, err := s.d.Redeem(s.ctx, token)
	s.must(err)
	s.hostile("token", token)
	tr := s.intrude()
	b := s.asked("SV_REC", tr.out, true)
	s.named(b, tr.in)
	if got := b.Traceback[0]; got.Token != token {
		t.Fatalf("the attacker's host answered %+v", got)
	}
	c := chain.Build(chain.Of([]report.Redeemed{b, d}...))
	text := chain.Text(c)
	path := fmt.Sprintf("%s -> b (%s) -> %s\n", tr.in.remote.Addr(), tr.out.local.Addr(), tr.out.remote.Addr())
	if !slices.Contains(slices.Collect(strings.Lines(text)), path) {
		t.Errorf("there is no path %q", path)
	}
	for line := range strings.Lines(text) { // bob is on b, and that is all that is said of his host
		if strings.HasPrefix(line, "d (") && strings.Contains(line, tr.out.remote.String()) {
			t.Errorf("d is on the path %q", line)
		}
	}
	if len(c.Contradictions) != 1 || !strings.Contains(c.Contradictions[0].Text, "d is not put on the path") {
		t.Errorf("nothing says that the token is another host's")
	}
	t.Log(text)
}
