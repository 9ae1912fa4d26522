package server

import (
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

const anyToken = "TOKEN" // stands for any token in the tables below

// shape replaces the token of a reply.
func shape(reply string) string {
	if i := strings.LastIndex(reply, " : "); i >= 0 {
		if _, err := stop.ParseToken(reply[i+3:]); err == nil {
			return reply[:i+3] + anyToken
		}
	}
	return reply
}

func TestReplies(t *testing.T) {
	const far = "127.0.0.3" // may not ask on behalf of others; 127.0.0.2 may
	for _, c := range []struct {
		name, from, line string
		errors, over     string
		find             func(stop.Question) error
		spent            bool // the source's budget
		want             string
		finds, examined  int
		why              string // of what was declined
	}{
		{name: "RFC 1413", line: "968, 23", want: "968 , 23 : USERID : OTHER : TOKEN", examined: 1},
		{name: "ID", line: "968,23:ID", want: "968 , 23 : USERID : OTHER : TOKEN", examined: 1},
		{name: "SV", line: "\t968 ,23 : sv", want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, examined: 1},
		{name: "SV_REC", line: "968,23:SV_REC:92847523456", want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, examined: 1},
		{name: "ID_REC", line: "968,23:ID_REC:0", want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, examined: 1},

		{name: "no connection", line: "968,23", find: errNoUser, want: "968 , 23 : ERROR : NO-USER", examined: 1},
		{name: "no connection, SV", line: "968,23:SV", find: errNoUser, want: "968 , 23 : ERROR : NO-USER", finds: 1},
		{name: "no connection, unknown", line: "968,23:SV", errors: ErrorsUnknown, find: errNoUser, want: "968 , 23 : ERROR : UNKNOWN-ERROR", finds: 1},
		{name: "no connection, token", line: "968,23:SV", errors: ErrorsToken, find: errNoUser, want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, why: "no user"},
		{name: "no connection, on behalf", from: "127.0.0.2", line: "968,23:SV:192.0.2.7", find: errNoUser, want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, why: "no user"},

		{name: "port 0", line: "0,23", want: "0 , 23 : ERROR : INVALID-PORT"},
		{name: "port too large", line: "968 , 65536 : SV", want: "968 , 65536 : ERROR : INVALID-PORT"},
		{name: "ten digits", line: "9999999999 , 1", want: "9999999999 , 1 : ERROR : INVALID-PORT"},
		{name: "port, unknown", line: "0,23", errors: ErrorsUnknown, want: "0 , 23 : ERROR : UNKNOWN-ERROR"},
		{name: "port, token", line: "0,23", errors: ErrorsToken, want: "0 , 23 : USERID : OTHER : TOKEN", why: "invalid port"},
		{name: "port, on behalf", from: "127.0.0.2", line: "0,70000:ID:192.0.2.7", want: "0 , 70000 : USERID : OTHER : TOKEN", why: "invalid port"},
		{name: "port, stranger", from: far, line: "0,70000:ID:192.0.2.7", want: "0 , 70000 : USERID : OTHER : TOKEN",
			why: "the requester may not ask on behalf of other hosts"},

		{name: "on behalf", from: "127.0.0.2", line: "968,23:SV_REC:1:192.0.2.7", want: "968 , 23 : USERID : OTHER : TOKEN", finds: 1, examined: 1},
		{name: "stranger", from: far, line: "968,23:SV_REC:1:192.0.2.7", want: "968 , 23 : USERID : OTHER : TOKEN",
			why: "the requester may not ask on behalf of other hosts"},

		{name: "over", line: "968,23", spent: true, want: "968 , 23 : USERID : OTHER : TOKEN"},
		{name: "over, error", line: "968,23", over: OverError, spent: true, want: "968 , 23 : ERROR : UNKNOWN-ERROR"},
		{name: "over, error, but tokens for errors", line: "968,23", errors: ErrorsToken, over: OverError, spent: true, want: "968 , 23 : USERID : OTHER : TOKEN"},
		{name: "over, on behalf", from: "127.0.0.2", line: "968,0:ID:192.0.2.7", over: OverError, spent: true, want: "968 , 0 : USERID : OTHER : TOKEN"},
		{name: "over, stranger", from: far, line: "968,23:ID:192.0.2.7", over: OverError, spent: true, want: "968 , 23 : USERID : OTHER : TOKEN"},
		{name: "over, miss", line: "968,23:SV", over: OverError, spent: true, find: errNoUser, want: "968 , 23 : ERROR : UNKNOWN-ERROR", finds: 1},

		{name: "cannot look", line: "968,23:SV", find: func(stop.Question) error { return errors.New("netlink broke") }, want: "", finds: 1},
		{name: "cannot keep", line: "968,23", find: func(stop.Question) error { return errors.New("disk broke") }, want: "", examined: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				if c.errors != "" {
					cfg.Errors = c.errors
				}
				if c.over != "" {
					cfg.Limits.Over = c.over
				}
				f := &fake{find: c.find}
				s := newServer(f, cfg)
				if c.from == "" {
					c.from = "127.0.0.1"
				}
				if c.spent {
					for s.sources.spend(Source(netip.MustParseAddr(c.from)), time.Now(), cfg.Limits.perSource()) {
					}
				}
				if got := shape(once(t, s, c.from, c.line)); got != c.want {
					t.Errorf("reply to %q is %q, not %q", c.line, got, c.want)
				}
				if finds, examined, _ := f.seen(); finds != c.finds || examined != c.examined {
					t.Errorf("looked up %d times and examined %d times, not %d and %d", finds, examined, c.finds, c.examined)
				}
				var why []string
				for _, d := range f.declined {
					why = append(why, d.why)
				}
				if got := strings.Join(why, ", "); got != c.why {
					t.Errorf("declined because %q, not %q", got, c.why)
				}
			})
		})
	}
}

// Who asks on behalf of another host never gets an error, and never learns by one: whatever is wrong.
func TestOnBehalfNeverError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []string{ErrorsStandard, ErrorsUnknown, ErrorsToken} {
			for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
				cfg := testConfig()
				cfg.Errors, cfg.Limits.Over, cfg.Limits.Burst, cfg.Limits.AskersPerSID = mode, OverError, 3, 1
				s := newServer(&fake{find: errNoUser}, cfg)
				for _, line := range []string{"0 , 0 : ID : 192.0.2.7", "1 , 2 : SV : 192.0.2.7", "1 , 2 : SV_REC : 7 : [2001:db8::7]", "1 , 99999 : ID_REC : 7 : 192.0.2.7"} {
					for range 3 {
						ports, _, _ := strings.Cut(line, " : ")
						tokenIn(t, ports, once(t, s, from, line))
					}
				}
			}
		}
	})
}

func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line, ports = "968 , 23 : SV_REC : 7", "968 , 23"
		f := &fake{}
		cfg := testConfig()
		s := newServer(f, cfg)
		first := tokenIn(t, ports, once(t, s, "127.0.0.9", line))
		// A duplicate is a token, a record and nothing else.
		for i, again := range []string{line, "968,23:sv_rec:7"} {
			if got := tokenIn(t, ports, once(t, s, "127.0.0.9", again)); got == first {
				t.Error("two requests have one token")
			}
			if _, examined, declined := f.seen(); examined != 1 || declined != i+1 {
				t.Fatalf("%q: examined %d, declined %d", again, examined, declined)
			}
			if d := f.declined[i]; d.sameAs != first || d.why != "duplicate" {
				t.Errorf("%q was declined as %q of %s, not of %s", again, d.why, d.sameAs, first)
			}
		}
		// None of these is one.
		for i, c := range []struct{ from, line string }{
			{"127.0.0.8", line}, // another connection
			{"127.0.0.2", "968 , 23 : SV_REC : 7 : 127.0.0.9"}, // another requester
			{"127.0.0.9", "968 , 23 : SV_REC : 8"},
			{"127.0.0.9", "969 , 23 : SV_REC : 7"},
			{"127.0.0.9", "968 , 24 : SV_REC : 7"},
			{"127.0.0.9", "968 , 23 : ID_REC : 7"},
			{"127.0.0.9", "968 , 23 : SV"}, // no SID, no duplicate
			{"127.0.0.9", "968 , 23 : SV"},
			{"127.0.0.9", "968 , 23"},
			{"127.0.0.9", "968 , 23"},
		} {
			once(t, s, c.from, c.line)
			if _, examined, declined := f.seen(); examined != i+2 || declined != 2 {
				t.Fatalf("%q from %s: examined %d, declined %d", c.line, c.from, examined, declined)
			}
		}
		_, examined, _ := f.seen()
		time.Sleep(cfg.Traceback.Window)
		once(t, s, "127.0.0.9", line)
		if _, after, _ := f.seen(); after != examined+1 {
			t.Error("after the window a request is still a duplicate")
		}
		s.under.Wait()
	})
}

// Names that were asked for first do not keep the report from being saved, and are no second time asked for.
func TestNamesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := newServer(f, testConfig())
		for _, c := range []struct {
			line               string
			examined, declined int
		}{
			{"968 , 23 : ID_REC : 7", 1, 0},
			{"968 , 23 : SV_REC : 7", 2, 0},
			{"968 , 23 : ID_REC : 7", 2, 1},
			{"968 , 23 : SV_REC : 7", 2, 2},
		} {
			tokenIn(t, "968 , 23", once(t, s, "127.0.0.9", c.line))
			if _, examined, declined := f.seen(); examined != c.examined || declined != c.declined {
				t.Errorf("after %q: examined %d, declined %d", c.line, examined, declined)
			}
		}
		s.under.Wait()
	})
}

// On behalf of a host or from it: it is one connection, but two requesters.
func TestDuplicatesOfOneConnectionAtTwoAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{local: netip.MustParseAddrPort("192.0.2.1:968")} // whatever address the request came to
		s := newServer(f, testConfig())
		once(t, s, "127.0.0.9", "968 , 23 : SV_REC : 7")
		ours, theirs := dialPipe(t, s, "127.0.0.9"), "968 , 23 : SV_REC : 7\r\n"
		ours.ask(theirs)
		if _, examined, declined := f.seen(); examined != 1 || declined != 1 {
			t.Errorf("examined %d, declined %d", examined, declined)
		}
	})
}

func TestErrorsAreNoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, when := range []string{"found", "examined"} {
			f := &fake{}
			if when == "found" {
				f.find = errNoUser
			} else {
				f.examine = errNoUser
			}
			s := newServer(f, testConfig())
			for range 2 {
				if got := once(t, s, "127.0.0.9", "968 , 23 : SV_REC : 7"); got != "968 , 23 : ERROR : NO-USER" {
					t.Errorf("not %s: answered %q", when, got)
				}
			}
			if len(s.asked.known) != 0 {
				t.Errorf("not %s: remembered as a request that has an answer", when)
			}
			f.find, f.examine = nil, nil
			tokenIn(t, "968 , 23", once(t, s, "127.0.0.9", "968 , 23 : SV_REC : 7"))
			if f.declined != nil {
				t.Errorf("not %s: the request that had an answer was declined", when)
			}
		}
	})
}

// A duplicate of a request that is still being answered waits for it, so that it can name its token. If
// that has none, one of those that wait takes its place.
func TestConcurrentDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fail := range []bool{false, true} {
			gate := make(chan struct{})
			var mu sync.Mutex
			calls := 0
			f := &fake{examine: func(stop.Question) error {
				<-gate
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls == 1 && fail {
					return errors.New("disk broke")
				}
				return nil
			}}
			cfg := testConfig()
			cfg.Limits.Lookups = 1 // those that wait take no room
			s := newServer(f, cfg)
			replies := make(chan string, 4)
			for range cap(replies) {
				go func() { replies <- once(t, s, "127.0.0.9", "968 , 23 : SV_REC : 7") }()
			}
			synctest.Wait()
			if _, examined, declined := f.seen(); examined != 1 || declined != 0 {
				t.Fatalf("examined %d, declined %d while the first is under way", examined, declined)
			}
			close(gate)
			tokens := map[string]bool{}
			closed := 0
			for range cap(replies) {
				if r := <-replies; r == "" {
					closed++
				} else {
					tokens[r] = true
				}
			}
			want := 0
			if fail {
				want = 1
			}
			if closed != want || len(tokens) != cap(replies)-want {
				t.Errorf("fail %t: %d without reply, %d tokens", fail, closed, len(tokens))
			}
			first := fmt.Sprintf("968 , 23 : USERID : OTHER : %s", f.declined[0].sameAs)
			if !tokens[first] {
				t.Errorf("fail %t: duplicates name %q, which nobody got", fail, first)
			}
			for _, d := range f.declined {
				if d.sameAs != f.declined[0].sameAs {
					t.Errorf("duplicates of different tokens: %s, %s", d.sameAs, f.declined[0].sameAs)
				}
			}
			s.under.Wait()
		}
	})
}

func TestConfigureReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst = 0.001, 2
		f := &fake{find: errNoUser}
		s := newServer(f, cfg)
		c := dialPipe(t, s, "127.0.0.2")
		if got := c.ask("1 , 2 : SV\r\n"); got != "1 , 2 : ERROR : NO-USER" {
			t.Fatal(got)
		}
		next := testConfig()
		next.Errors, next.OnBehalf = ErrorsUnknown, nil
		s.Configure(next)
		// On a connection that is open already: the mode, and a budget that was nearly spent.
		for range 5 {
			if got := c.ask("1 , 2 : SV\r\n"); got != "1 , 2 : ERROR : UNKNOWN-ERROR" {
				t.Fatal(got)
			}
		}
		finds, _, _ := f.seen()
		tokenIn(t, "1 , 2", c.ask("1 , 2 : SV : 192.0.2.7\r\n"))
		if after, _, _ := f.seen(); after != finds {
			t.Error("who may no longer ask on behalf of others costs a look-up")
		}
	})
}

// A reply tells nothing by its form: neither of what, nor of whether.
func TestTokensLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.Lookups = 1
		f := &fake{}
		s := newServer(f, cfg)
		var forms []string
		for _, line := range []string{"1 , 2", "1 , 2 : SV", "1 , 2 : SV_REC : 7", "1 , 2 : SV_REC : 7", "1 , 2 : ID : 192.0.2.7"} {
			forms = append(forms, shape(once(t, s, "127.0.0.3", line)))
		}
		others := payer{source: Source(netip.MustParseAddr("192.0.2.7"))}
		s.lookups.take(others) // over the bound
		forms = append(forms, shape(once(t, s, "127.0.0.3", "1 , 2 : SV")))
		if forms = slices.Compact(forms); len(forms) != 1 || forms[0] != "1 , 2 : USERID : OTHER : TOKEN" {
			t.Errorf("replies differ: %q", forms)
		}
		s.lookups.giveBack(others)
		s.under.Wait()
	})
}

// That a gateway knows nothing of a connection is not said in the name of the host that it answers for.
func TestNoUserForAnother(t *testing.T) {
	for _, line := range []string{"968,23", "968,23:SV", "968,23:SV_REC:7"} {
		for _, sentTo := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.9")} {
			f := &fake{find: errNoUser, examine: errNoUser}
			s := newServer(f, testConfig())
			r, err := stop.ParseRequest([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			q := r.About(netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.2"), time.Now())
			q.SentTo = sentTo
			want := stop.NoUser
			if sentTo.IsValid() {
				want = stop.UnknownError
			}
			if a, err := s.answer(t.Context(), s.config.Load(), q, ""); err != nil || a.reply.Error != want {
				t.Errorf("%s, sent to %v: %+v, %v", line, sentTo, a.reply, err)
			}
		}
	}
}
