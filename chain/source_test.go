package chain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// Of a candidate that a report does name, whoever has had a file in his hands can write what it answered. The copy of better
// standing counts, in whichever order they come.
func TestStandings(t *testing.T) {
	innocent := redeemed("si", "innocent", "192.0.2.66:616", "192.0.2.67:22")
	refused := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "error", "NO-USER"))
	awaited := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "none", ""))
	awaited.Traceback[0].Answered = time.Time{}
	forged := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "si"))
	for _, test := range []struct {
		name         string
		good, bad    Source
		told, status string
	}{
		{"the policy is met", Source{Redeemed: refused, Standing: Vouched}, Source{Redeemed: forged, Standing: Plain}, "two copies", "refused"},
		{"of two bundles", Source{Redeemed: refused, Standing: Vouched}, Source{Redeemed: forged, Standing: Unvouched}, "two copies", "refused"},
		{"held against nothing", Source{Redeemed: refused, Standing: Consistent}, Source{Redeemed: forged, Standing: Plain}, "two copies", "refused"},
		{"by who did not say", Source{Redeemed: refused, Standing: Consistent}, Source{Redeemed: forged}, "two copies", "refused"},
		{"an early bundle", Source{Redeemed: awaited, Standing: Vouched}, Source{Redeemed: forged, Standing: Plain}, "", "awaited"},
		{"a late copy", Source{Redeemed: refused, Standing: Vouched}, Source{Redeemed: awaited, Standing: Plain}, "", "refused"},
	} {
		for _, ss := range [][]Source{{test.good, test.bad}, {test.bad, test.good}} {
			c := Build(append(ss, Of(innocent)...))
			q := c.Connections[slices.IndexFunc(c.Connections, func(k Connection) bool { return len(k.Questions) > 0 })].Questions[0]
			if string(q.Status) != test.status || (len(c.Contradictions) > 0) != (test.told != "") {
				t.Errorf("%s: %+v, %+v", test.name, q, c.Contradictions)
			}
			for _, x := range c.Contradictions {
				if x.Kind != AboutRecord || !strings.Contains(x.Text, test.told) {
					t.Errorf("%s: %+v", test.name, x)
				}
			}
			for _, p := range c.Paths {
				if len(p.Hosts) > 2 && slices.ContainsFunc(p.Hosts, func(id int) bool { return c.host(id).Name == "innocent" }) {
					t.Errorf("%s: the innocent is on a path: %s", test.name, Text(c))
				}
			}
		}
	}
}

// No host asks on a user's word alone: a record that says so was altered.
func TestAskedOnAUsersWord(t *testing.T) {
	innocent := redeemed("si", "innocent", aToB, bIn)
	r := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "si"))
	if c := Build(Of(r, innocent)); len(c.Paths) != 1 || len(c.Contradictions) > 0 {
		t.Fatalf("corroborated: %s", Text(c))
	}
	r.Report.Previous[0].Corroborated = false
	c := Build(Of(r, innocent))
	if len(c.Contradictions) != 1 || !strings.Contains(c.Contradictions[0].Text, "a user alone") {
		t.Errorf("%+v", c.Contradictions)
	}
	for _, k := range c.Connections {
		for _, q := range k.Questions {
			if q.Status != Claimed || q.Corroborated || !strings.Contains(q.Detail, "no record of whom the host asked") {
				t.Errorf("%+v", q)
			}
		}
	}
}

// What the reports stand on is told in each form that has words for it; of a picture with one kind, once.
func TestStandingsAreTold(t *testing.T) {
	of := func(standings ...Standing) *Chain {
		var ss []Source
		for i, r := range rowOf(len(standings)) {
			ss = append(ss, Source{Redeemed: r, Standing: standings[i]})
		}
		return Build(ss)
	}
	for _, test := range []struct {
		chain *Chain
		form  string
		says  string
		n     int
	}{
		{of(Plain, Vouched), "text", "standing  plain JSON; host2.example.org recorded its token. Whom it asked", 1},
		{of(Plain, Vouched), "text", "standing  a bundle that meets the policy", 1},
		{of(Unvouched, Consistent), "text", "standing  a bundle", 2},
		{of("", ""), "text", "standing", 0},
		{of(Plain, Vouched), "svg", "1 as bundle: policy met · 1 as plain JSON", 1},
		{of(Plain, Vouched), "svg", ">plain JSON</text>", 1},
		{of(Plain, Plain), "svg", ">plain JSON</text>", 0},
		{of(Plain, Plain), "svg", "2 as plain JSON", 1},
		{of(Plain, Vouched), "json", `"standing":"policy met"`, 1},
		{of(Plain, Vouched), "ecs", `"standing":"plain"`, 1},
	} {
		text, err := forms[test.form](test.chain)
		if err != nil {
			t.Fatal(err)
		}
		if test.form == "json" {
			text = strings.ReplaceAll(text, `": "`, `":"`)
		}
		if strings.Count(text, test.says) != test.n {
			t.Errorf("%q is %d times in %s, want %d", test.says, strings.Count(text, test.says), text, test.n)
		}
	}
}

// What whoever has root on one host, or a file of another's, can try: nobody comes onto a path by it, nobody leaves it unnoticed.
func TestForgeries(t *testing.T) {
	a := redeemed("sa", "a", aToB, bIn)
	b := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "sa"))
	c := redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sb"))
	innocent := redeemed("si", "innocent", "192.0.2.66:616", "192.0.2.67:22")
	of := func(r report.Redeemed, s Standing) Source { return Source{Redeemed: r, Standing: s} }
	changed := func(r report.Redeemed, change func(r *report.Redeemed)) report.Redeemed {
		r.Traceback, r.Report.Previous = slices.Clone(r.Traceback), slices.Clone(r.Report.Previous)
		change(&r)
		return r
	}
	repeats := func(r report.Redeemed, token string) report.Redeemed {
		return changed(r, func(r *report.Redeemed) {
			r.Report.Kind, r.Report.SameAs, r.Report.Connection, r.Report.Processes, r.Report.Previous, r.Traceback = report.KindDuplicate, token, nil, nil, nil, nil
		})
	}
	unasked := changed(b, func(r *report.Redeemed) { r.Traceback[0].Asked, r.Traceback[0].Token = false, "" })
	later := changed(b, func(r *report.Redeemed) { r.Traceback[0].Answered = r.Traceback[0].Answered.Add(time.Hour) })
	twice := changed(b, func(r *report.Redeemed) { r.Traceback = append(r.Traceback, previous(aToB, bIn, "token", "si")) })
	missing := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "none", "ask: connection refused"))
	another := redeemed("sx", "x", aToB, bIn)
	asC := redeemed("sy", "c", cToD, dIn, previous("192.0.2.66:616", cIn, "token", "si"))
	toC := redeemed("si", "innocent", "192.0.2.66:616", cIn)
	denies := changed(redeemed("sn", "n", "192.0.2.9:1", "192.0.2.66:2"), func(r *report.Redeemed) {
		r.Report.Kind, r.Report.Reason, r.Report.Connection, r.Report.Processes = report.KindNone, "no such connection", nil, nil
	})
	for _, test := range []struct {
		name  string
		in    []Source
		paths []string
		told  string
	}{
		{"sound", []Source{of(a, Vouched), of(b, Vouched), of(c, Vouched)}, []string{"a b c 192.0.2.4"}, ""},
		{"a duplicate of an innocent's report", []Source{of(repeats(b, "si"), Vouched), of(c, Vouched), of(innocent, Vouched)},
			[]string{"b c 192.0.2.4", "innocent 192.0.2.67"}, "which is a report of another host or connection"},
		{"a duplicate of its own report of another connection", []Source{of(repeats(b, "sz"), Vouched), of(c, Vouched), of(redeemed("sz", "b", "192.0.2.2:9", "192.0.2.66:22"), Vouched)},
			[]string{"b c 192.0.2.4", "b 192.0.2.66"}, "which is a report of another host or connection"},
		{"a record that nobody was asked", []Source{of(b, Plain), of(unasked, Plain)}, []string{"b 192.0.2.3"}, "the copies of what"},
		{"other times", []Source{of(b, Plain), of(later, Plain), of(c, Plain)}, []string{"b c 192.0.2.4"}, "the copies of what"},
		{"a record twice", []Source{of(twice, Plain), of(c, Plain), of(innocent, Plain)}, []string{"b c 192.0.2.4", "innocent 192.0.2.67"}, "the copies of what"},
		{"one more record", []Source{of(twice, Plain), of(b, Vouched), of(a, Plain), of(innocent, Plain)}, []string{"a b 192.0.2.3", "innocent 192.0.2.67"}, "two copies of what"},
		{"another's report of the connection", []Source{of(a, Vouched), of(missing, Vouched), of(another, Plain)}, []string{"a b 192.0.2.3", "x b"}, "sa counts, for which most speaks"},
		{"two reports of which none is better", []Source{of(a, Plain), of(missing, Plain), of(another, Plain)}, []string{"192.0.2.1 b 192.0.2.3", "a b", "x b"}, "none is taken for it"},
		{"a plain file in a host's name", []Source{of(c, Vouched), of(b, Vouched), of(toC, Vouched), of(asC, Plain)},
			[]string{"192.0.2.1 b c 192.0.2.4", "innocent c"}, ""},
		{"the same in a bundle that anybody can make", []Source{of(c, Vouched), of(b, Vouched), of(toC, Vouched), of(asC, Unvouched)},
			[]string{"192.0.2.1 b c 192.0.2.4", "innocent c"}, ""},
		{"a plain file in the place of a token that is not at hand", []Source{of(c, Vouched), of(changed(b, func(r *report.Redeemed) { r.Token = "sq" }), Plain)},
			[]string{"192.0.2.1 b c", "192.0.2.2 c 192.0.2.4"}, "sq is another, which anybody can have made"},
		{"two reports of a host that was asked twice", []Source{of(a, Vouched), of(changed(a, func(r *report.Redeemed) { r.Token = "sa2" }), Vouched), of(missing, Vouched)},
			[]string{"a b 192.0.2.3"}, ""},
		{"a denial beside a report", []Source{of(a, Plain), of(missing, Plain), of(changed(denies, func(r *report.Redeemed) { r.Report.Request, r.Report.Host = a.Report.Request, a.Report.Host }), Plain)},
			[]string{"a b 192.0.2.3"}, ""},
		{"an honest duplicate", []Source{of(b, Plain), of(repeats(changed(b, func(r *report.Redeemed) { r.Token = "sdup" }), "sb"), Vouched), of(a, Vouched),
			of(redeemed("sc", "c", cToD, dIn, previous(bToC, cIn, "token", "sdup")), Vouched)}, []string{"a b c 192.0.2.4"}, ""},
		{"a token of another's report, from a host at a private address", []Source{of(redeemed("sb", "b", bToC, cIn, previous("10.0.0.5:999", "192.0.2.2:22", "token", "si")), Vouched), of(innocent, Vouched)},
			[]string{"10.0.0.5 b 192.0.2.3", "innocent 192.0.2.67"}, "answered with the token of a report of innocent"},
		{"a denial", []Source{of(denies, Vouched)}, nil, ""},
		{"another's log", []Source{{Redeemed: b, Standing: Vouched, Log: "m/stopd/1"}, {Redeemed: missing, Standing: Vouched, Log: "b/stopd/2"}}, []string{"192.0.2.1 b 192.0.2.3"}, "in two logs, b/stopd/2 and m/stopd/1"},
		{"two logs of a host", []Source{{Redeemed: b, Standing: Vouched, Log: "m/stopd/1"}, {Redeemed: redeemed("sb2", "b", "192.0.2.2:9", "192.0.2.66:22"), Standing: Vouched, Log: "b/stopd/2"}},
			[]string{"192.0.2.1 b 192.0.2.3", "b 192.0.2.66"}, "are in 2 logs"},
	} {
		ch := Build(test.in)
		var paths []string
		for _, p := range ch.Paths {
			var names []string
			for _, id := range p.Hosts {
				h := ch.host(id)
				name := h.Name
				if name == "" {
					name = h.address()
				}
				names = append(names, name)
			}
			paths = append(paths, strings.Join(names, " "))
		}
		slices.Sort(paths)
		slices.Sort(test.paths)
		if !slices.Equal(paths, test.paths) {
			t.Errorf("%s: paths %q, want %q", test.name, paths, test.paths)
		}
		told := slices.ContainsFunc(ch.Contradictions, func(x Contradiction) bool { return strings.Contains(x.Text, test.told) })
		if told != (test.told != "") && !(test.told == "" && len(ch.Contradictions) == 0) {
			t.Errorf("%s: told %+v, want %q", test.name, ch.Contradictions, test.told)
		}
	}
}

// Of one token's records one says for certain who is meant. A second is no host's: the first counts, and it is said.
func TestSecondRecordForCertain(t *testing.T) {
	told := &stop.Flow{Grade: stop.FlowCertain}
	for name, tt := range map[string]struct {
		grade string
		drawn bool // the second
	}{"certain": {stop.FlowCertain, false}, "supported": {stop.FlowSupported, true}} {
		t.Run(name, func(t *testing.T) {
			const other = "192.0.2.9:4000"
			b := redeemed("sb", "b", bToC, cIn, previous(aToB, bIn, "token", "sa"), previous(other, bIn, "token", "sd"))
			for i := range b.Traceback {
				b.Traceback[i].SelectedBy, b.Traceback[i].Flow = stop.SelectedByFlow, told
			}
			b.Traceback[1].Flow = &stop.Flow{Grade: tt.grade}
			c := Build(Of(b))
			text := Text(c)
			if !strings.Contains(text, "192.0.2.1") || strings.Contains(text, "token sd") != tt.drawn && !tt.drawn {
				t.Errorf("drawn:\n%s", text)
			}
			noted := strings.Contains(fmt.Sprint(c.Contradictions), "say for certain that one more connection")
			if noted == tt.drawn {
				t.Errorf("contradictions %v", c.Contradictions)
			}
		})
	}
}

// Of one connection the host has said for certain who is meant. Where it says another when it is asked again, neither counts: only its own clock tells which was first.
func TestSecondTokenForCertain(t *testing.T) {
	told := func(token, from string, cookie uint64, later time.Duration) report.Redeemed {
		r := redeemed(token, "b", bToC, cIn, previous(from, bIn, "none", ""))
		r.Report.Request.Time = r.Report.Request.Time.Add(later)
		r.Report.Connection.Cookie = cookie
		r.Traceback[0].SelectedBy, r.Traceback[0].Flow = stop.SelectedByFlow, &stop.Flow{Grade: stop.FlowCertain}
		return r
	}
	const other = "192.0.2.9:4000"
	for name, tt := range map[string]struct {
		standing Standing
		from     string
		cookie   uint64
		said     string
		left     bool // out
	}{
		"another":                   {Vouched, other, 5, "that different ones feed it", true},
		"another, in plain":         {Plain, other, 5, "that different ones feed it", false},
		"the same":                  {Vouched, aToB, 5, "", false},
		"another's, by a later one": {Vouched, other, 6, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			// The later token is before the other in their order.
			ss := Of(told("s2", aToB, 5, 0), told("s1", tt.from, tt.cookie, time.Second))
			for i := range ss {
				ss[i].Standing = tt.standing
			}
			c := Build(ss)
			told := fmt.Sprint(c.Contradictions)
			if (tt.said != "") != strings.Contains(told, "for certain") || !strings.Contains(told, tt.said) {
				t.Errorf("contradictions %v", told)
			}
			b := builder{byToken: map[string]*account{}, omitted: map[string]int{}}
			b.accounts(ss)
			if left := len(b.byToken["s1"].Traceback) == 0; left != tt.left || (len(b.byToken["s2"].Traceback) == 0) != tt.left {
				t.Errorf("records %v and %v", b.byToken["s2"].Traceback, b.byToken["s1"].Traceback)
			}
		})
	}
}
