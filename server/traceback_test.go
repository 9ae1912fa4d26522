package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd"
)

// previousHosts are hosts on loopback, all at one port, that answer each line by a function.
func previousHosts(t *testing.T, addrs []string, answer func(host, from, line string) string) uint16 {
	t.Helper()
	port := 0
	for _, a := range addrs {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", a, port))
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		var under sync.WaitGroup
		t.Cleanup(func() { l.Close(); under.Wait() })
		under.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				under.Go(func() {
					defer c.Close()
					line, _ := bufio.NewReader(c).ReadString('\n')
					from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					io.WriteString(c, answer(a, from, strings.TrimSuffix(line, "\r\n")))
				})
			}
		})
	}
	return uint16(port)
}

func candidate(remote, local string) stop.Previous {
	return stop.Previous{Ends: stop.Ends{Remote: netip.MustParseAddrPort(remote), Local: netip.MustParseAddrPort(local)},
		Reasons: []string{"inbound"}, Corroborated: true}
}

func TestPlan(t *testing.T) {
	cfg := testConfig()
	cfg.Traceback.MaxPrevious = 2
	cfg.Traceback.To = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	cfg.Traceback.OutboundTo = []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("203.0.113.0/24")}
	with := func(p stop.Previous, change func(*stop.Previous)) stop.Previous { change(&p); return p }
	outbound := func(p *stop.Previous) { p.Outbound = true }
	behalf := func(p *stop.Previous) { p.OnBehalf = true }
	const local = "192.0.2.1:22"
	finding := func(ps []stop.Previous) stop.Finding {
		return stop.Finding{Type: stop.SVRec, SID: 92847523456, Previous: ps}
	}
	ask := func(request string) stop.Traceback {
		return stop.Traceback{SelectedBy: "inbound", Asked: true, Request: request}
	}
	not := func(why string) stop.Traceback {
		return stop.Traceback{SelectedBy: "inbound", Kind: "none", Error: "not asked: " + why}
	}
	for _, c := range []struct {
		name string
		in   []stop.Previous
		want []stop.Traceback
	}{
		{"none", nil, []stop.Traceback{}},
		// Its port first (thesis section 3.5.1).
		{"inbound", []stop.Previous{candidate("192.0.2.7:616", local)}, []stop.Traceback{ask("616 , 22 : SV_REC : 92847523456")}},
		{"IPv6", []stop.Previous{candidate("[2001:db8::7]:616", "[2001:db8::1]:22")}, []stop.Traceback{ask("616 , 22 : SV_REC : 92847523456")}},
		{"mapped", []stop.Previous{candidate("[::ffff:192.0.2.7]:616", local)}, []stop.Traceback{ask("616 , 22 : SV_REC : 92847523456")}},
		{"the user's word", []stop.Previous{with(candidate("192.0.2.7:616", local), func(p *stop.Previous) { p.Corroborated = false })},
			[]stop.Traceback{not("only the user's own word speaks for it")}},
		{"no port", []stop.Previous{with(candidate("192.0.2.7:616", local), func(p *stop.Previous) { p.Remote = netip.AddrPortFrom(p.Remote.Addr(), 0) })},
			[]stop.Traceback{not("its connection is not known")}},
		{"no local end", []stop.Previous{with(candidate("192.0.2.7:616", local), func(p *stop.Previous) { p.Local = netip.AddrPort{} })},
			[]stop.Traceback{not("its connection is not known")}},
		{"outbound", []stop.Previous{with(candidate("192.0.2.7:616", local), outbound)},
			[]stop.Traceback{not("this host opened the connection, and asking would tell the other end")}},
		{"outbound, allowed", []stop.Previous{with(candidate("192.0.2.200:616", local), outbound)}, []stop.Traceback{ask("616 , 22 : SV_REC : 92847523456")}},
		{"outbound, allowed, but nobody may be asked there", []stop.Previous{with(candidate("203.0.113.7:616", local), outbound)}, []stop.Traceback{not("policy")}},
		{"policy", []stop.Previous{candidate("198.51.100.7:616", local)}, []stop.Traceback{not("policy")}},
		{"elsewhere", []stop.Previous{with(candidate("192.0.2.7:616", local), func(p *stop.Previous) { p.Elsewhere = true })},
			[]stop.Traceback{not("its connection leaves the host from another network namespace")}},
		{"behind this host, which does not answer for others", []stop.Previous{with(candidate("192.0.2.7:616", "198.51.100.1:22"), behalf)},
			[]stop.Traceback{not("its connection is with another host, and this one is not set up to ask on behalf of others ([nat])")}},
		{"link-local", []stop.Previous{candidate("[fe80::7]:616", "[fe80::1]:22")}, []stop.Traceback{not("link-local")}},
		{"bound", []stop.Previous{candidate("198.51.100.7:1", local), candidate("192.0.2.7:1", local), candidate("192.0.2.7:2", local), candidate("192.0.2.7:3", local)},
			[]stop.Traceback{not("policy"), ask("1 , 22 : SV_REC : 92847523456"), ask("2 , 22 : SV_REC : 92847523456"),
				{SelectedBy: "bound", Kind: "none", Error: "not asked: too many candidates"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, plan, _ := NewTracebacks(nil, cfg).plan(cfg, finding(c.in))
			asked := 0
			for i := range c.want {
				c.want[i].Previous = c.in[i].Ends
				if c.want[i].Asked {
					if asked >= len(plan) || plan[asked] != i {
						t.Errorf("asked are %v", plan)
					}
					asked++
				}
			}
			if d := cmp.Diff(c.want, got, cmpopts.IgnoreFields(stop.Traceback{}, "Sent"), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
	// On a gateway they are asked on behalf of who is at the other end, also where that end opened the connection.
	gateway := *cfg
	gateway.Forwards = true
	for end, want := range map[string]string{"198.51.100.1:22": "198.51.100.1", "[2001:db8::1]:22": "[2001:db8::1]", "[::ffff:198.51.100.1]:22": "198.51.100.1"} {
		for _, change := range []func(*stop.Previous){behalf, func(p *stop.Previous) { p.OnBehalf, p.Outbound = true, true }} {
			records, plan, _ := NewTracebacks(nil, &gateway).plan(&gateway, finding([]stop.Previous{with(candidate("192.0.2.7:616", end), change)}))
			if len(plan) != 1 || records[0].Request != "616 , 22 : SV_REC : 92847523456 : "+want {
				t.Errorf("on behalf of %s: %+v", end, records)
			}
		}
	}
	if records, plan, _ := NewTracebacks(nil, &gateway).plan(&gateway, finding([]stop.Previous{with(candidate("203.0.113.7:616", "198.51.100.1:22"), behalf)})); len(plan) != 0 {
		t.Errorf("against the policy: %+v", records)
	}
	var many []stop.Previous
	for i := range 1000 {
		many = append(many, candidate(fmt.Sprintf("198.51.100.7:%d", i+1), local))
	}
	many = append(many, candidate("192.0.2.7:1", local), candidate("192.0.2.7:2", local), candidate("192.0.2.7:3", local))
	p := &promise{}
	p.records, p.plan, p.left = NewTracebacks(nil, cfg).plan(cfg, finding(many))
	records, plan := p.due(), p.plan
	if len(records) != maxNotAsked+2 || len(plan) != 2 || !records[plan[0]].Asked || !records[plan[1]].Asked {
		t.Errorf("%d records, asked are %v", len(records), plan)
	}
	if got, want := records[maxNotAsked-1].Error, "not asked: policy; and 745 more candidates, not asked"; got != want {
		t.Errorf("the last that is not asked says %q", got)
	}
	if got := requestTo(stop.Finding{Type: stop.IDRec, SID: 7}, candidate("192.0.2.7:616", local)); got.String() != "616 , 22 : ID_REC : 7" {
		t.Errorf("type and session are not kept: %s", got)
	}
}

// What previous hosts answer is kept with the token, word by word, and the requester has its reply before
// they are asked.
func TestTraceback(t *testing.T) {
	theirs := stop.TokenOf([]byte("theirs"))
	replied := make(chan struct{})
	port := previousHosts(t, []string{"127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24"}, func(host, from, line string) string {
		<-replied
		if from != "127.0.0.1" {
			return "" // not asked from the connection's own end
		}
		switch host {
		case "127.0.0.21":
			return "616 , 22 : USERID : OTHER : " + theirs.String() + "\r\n"
		case "127.0.0.22":
			return "616 , 22 : USERID : UNIX : al\x1bice\r\n"
		case "127.0.0.23":
			return "616 , 22 : ERROR : NO-USER\r\n"
		}
		return ""
	})
	f := &fake{previous: func() []stop.Previous {
		return []stop.Previous{candidate("127.0.0.21:616", "127.0.0.1:22"), candidate("127.0.0.22:616", "127.0.0.1:22"),
			candidate("127.0.0.23:616", "127.0.0.1:22"), candidate("127.0.0.24:616", "127.0.0.1:22"),
			{Ends: stop.Ends{Remote: netip.MustParseAddrPort("192.0.2.7:5")}, Reasons: []string{"ssh-connection"}}}
	}}
	cfg := testConfig()
	cfg.Traceback.Port, cfg.Traceback.Timeout = port, time.Minute // of a busy machine
	s := newServer(f, cfg)
	c := dialPipe(t, s, "127.0.0.9")
	token := tokenIn(t, "968 , 23", c.ask("968 , 23 : SV_REC : 7\r\n"))
	close(replied)
	c.Close()
	s.finish(t)
	if extra, _ := io.ReadAll(c.r); len(extra) > 0 {
		t.Errorf("the requester gets %q as well", extra)
	}
	got, _ := f.lastKept(token)
	type record struct {
		asked                                            bool
		request, reply, kind, token, selectedBy, errText string
	}
	const request = "616 , 22 : SV_REC : 7"
	want := []record{
		{true, request, "616 , 22 : USERID : OTHER : " + theirs.String(), "token", theirs.String(), "inbound", ""},
		{true, request, `616 , 22 : USERID : UNIX : al\x1bice`, "legacy", "", "inbound", "legacy: the host disclosed a name instead of a token"},
		{true, request, "616 , 22 : ERROR : NO-USER", "error", "", "inbound", "NO-USER"},
		{true, request, "", "none", "", "inbound", fmt.Sprintf("ask 127.0.0.24:%d: closed without a reply", port)},
		{false, "", "", "none", "", "ssh-connection", "not asked: only the user's own word speaks for it"},
	}
	var records []record
	for _, r := range got {
		records = append(records, record{r.Asked, r.Request, r.Reply, r.Kind, r.Token, r.SelectedBy, r.Error})
		if r.Asked == (r.Sent.IsZero() || r.Answered.Before(r.Sent)) || r.SameAs != "" {
			t.Errorf("%v: sent %s, answered %s, same as %q", r.Previous, r.Sent, r.Answered, r.SameAs)
		}
	}
	if d := cmp.Diff(want, records, cmp.AllowUnexported(record{})); d != "" {
		t.Error(d)
	}
	if n := len(f.kept[token]); n != 1 {
		t.Errorf("%d records", n)
	}
	if n := s.tracing().Counters.Asked.Load(); n != 4 {
		t.Errorf("%d asked", n)
	}
}

// Whoever cannot be asked from the connection's own end was not asked, and the record says so.
func TestNotAskedFromElsewhere(t *testing.T) {
	port := previousHosts(t, []string{"127.0.0.21"}, func(_, _, _ string) string { return "" })
	f := &fake{previous: func() []stop.Previous { return []stop.Previous{candidate("127.0.0.21:616", "192.0.2.1:22")} }}
	cfg := testConfig()
	cfg.Traceback.Port, cfg.Traceback.Timeout = port, time.Minute // of a busy machine
	s := newServer(f, cfg)
	token := tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : SV_REC : 7"))
	s.finish(t)
	got, _ := f.lastKept(token)
	if len(got) != 1 {
		t.Fatalf("records are %+v", got)
	}
	r := got[0]
	if !strings.HasPrefix(r.Error, "not asked: ask 127.0.0.21") || !strings.HasSuffix(r.Error, syscall.EADDRNOTAVAIL.Error()) {
		t.Errorf("the error is %q", r.Error)
	}
	r.Error = ""
	if want := (stop.Traceback{Previous: r.Previous, SelectedBy: "inbound", Kind: "none"}); r != want {
		t.Errorf("the record is %+v", r)
	}
	if n := s.tracing().Counters.Asked.Load(); n != 0 {
		t.Errorf("%d asked", n)
	}
}

// Only the types with a session ask anybody.
func TestOtherTypesAskNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{previous: func() []stop.Previous { return []stop.Previous{candidate("192.0.2.7:616", "127.0.0.1:22")} }}
		s := newServer(f, testConfig())
		for _, line := range []string{"1 , 2", "1 , 2 : SV"} {
			once(t, s, "127.0.0.9", line)
		}
		s.finish(t)
		if s.tracing().Counters.Asked.Load() != 0 || f.kept != nil {
			t.Errorf("%d asked, records %v", s.tracing().Counters.Asked.Load(), f.kept)
		}
	})
}

func TestFollowedOnce(t *testing.T) {
	theirs := stop.TokenOf([]byte("theirs"))
	var mu sync.Mutex
	asked := map[string]int{}
	begun, gate := make(chan struct{}, 100), make(chan struct{})
	port := previousHosts(t, []string{"127.0.0.21", "127.0.0.22"}, func(host, _, line string) string {
		mu.Lock()
		asked[host]++
		mu.Unlock()
		begun <- struct{}{}
		<-gate
		return "616 , 22 : USERID : OTHER : " + theirs.String() + "\r\n"
	})
	a, b := candidate("127.0.0.21:616", "127.0.0.1:22"), candidate("127.0.0.22:616", "127.0.0.1:22")
	word := func(n int) stop.Previous {
		return stop.Previous{Ends: stop.Ends{Remote: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:1", n))}, Reasons: []string{"ssh-connection"}}
	}
	previous := []stop.Previous{a, b}
	f := &fake{}
	f.previous = func() []stop.Previous { return previous }
	cfg := testConfig()
	cfg.Traceback.Port, cfg.Traceback.Timeout = port, time.Minute // of a busy machine
	s := newServer(f, cfg)
	ask := func(from, line string) stop.Token { return tokenIn(t, "1 , 2", once(t, s, from, line)) }

	first := ask("127.0.0.9", "1 , 2 : SV_REC : 1")
	<-begun
	<-begun
	// Another session, another asker: it is the same trace-back, though what nobody asks about differs.
	var later []stop.Token
	previous = []stop.Previous{b, word(5), a}
	later = append(later, ask("127.0.0.9", "1 , 2 : SV_REC : 2"))
	previous = []stop.Previous{a, b, word(6)}
	later = append(later, ask("127.0.0.2", "1 , 2 : SV_REC : 3 : 127.0.0.9"))
	close(gate)
	s.flush()
	// And once it has ended.
	later = append(later, ask("127.0.0.9", "1 , 2 : SV_REC : 4"))
	s.flush()
	if d := cmp.Diff(map[string]int{"127.0.0.21": 1, "127.0.0.22": 1}, asked); d != "" {
		t.Error(d)
	}
	own, _ := f.lastKept(first)
	for i, l := range later {
		records, _ := f.lastKept(l)
		if want := map[int]int{0: 3, 1: 3, 2: 3}[i]; len(records) != want {
			t.Errorf("later asker %d has %d records", i, len(records))
		}
		for _, r := range records {
			if !r.Asked {
				if r.SameAs != "" {
					t.Errorf("nobody was asked about %v, under no token", r.Previous)
				}
				continue
			}
			if r.SameAs != first.String() || r.Token != theirs.String() || r.Kind != "token" || r.Sent != own[0].Sent && r.Sent != own[1].Sent {
				t.Errorf("later asker %d: %+v", i, r)
			}
		}
	}
	// Names alone, or whole reports: what is saved there differs.
	ask("127.0.0.9", "1 , 2 : ID_REC : 5")
	// Another set of previous hosts.
	previous = []stop.Previous{a}
	ask("127.0.0.9", "1 , 2 : SV_REC : 6")
	// Another connection.
	tokenIn(t, "1 , 3", once(t, s, "127.0.0.9", "1 , 3 : SV_REC : 7"))
	s.flush()
	if d := cmp.Diff(map[string]int{"127.0.0.21": 4, "127.0.0.22": 2}, asked); d != "" {
		t.Error(d)
	}
}

// However many requests come, only so many trace-backs are under way, and those beyond say so.
func TestTracebackBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{previous: func() []stop.Previous { return []stop.Previous{candidate("192.0.2.7:616", "127.0.0.1:22")} }}
		cfg := testConfig()
		cfg.Traceback.Parallel = 1
		s := newServer(f, cfg)
		s.tracing().asking.take(payer{}) // and none may ask
		var tokens []stop.Token
		for s.tracing().begun.take(payer{}) { // half of them
		}
		for i := range waitingPerSlot/4 + 3 {
			tokens = append(tokens, tokenIn(t, fmt.Sprintf("1 , %d", i+1), once(t, s, "127.0.0.9", fmt.Sprintf("1 , %d : SV_REC : 7", i+1))))
		}
		synctest.Wait()
		if n := s.tracing().Counters.OverBound.Load(); n != 3 {
			t.Errorf("%d were over the bound", n)
		}
		start := time.Now()
		s.settle()
		if got := time.Since(start); got != cfg.Traceback.Timeout/2 {
			t.Errorf("they waited %s", got)
		}
		s.recorded()
		if got := time.Since(start); got != recordAfter(cfg, stop.SVRec) {
			t.Errorf("they were recorded after %s", got)
		}
		for _, token := range tokens {
			r, _ := f.lastKept(token)
			if r[0].Asked || r[0].SelectedBy != "bound" || r[0].Request != "" || r[0].Error != "not asked: too many trace-backs are under way" {
				t.Errorf("%+v", r[0])
			}
			if n := len(f.kept[token]); n != 1 {
				t.Errorf("where nobody was asked it is on record %d times", n)
			}
		}
		if s.tracing().Counters.Asked.Load() != 0 {
			t.Error("somebody was asked")
		}
		if len(s.tracing().followed.known) != 0 {
			t.Error("what was not followed counts as followed")
		}
	})
}
