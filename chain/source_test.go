package chain

import (
	"slices"
	"strings"
	"testing"
	"time"
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
		{"the policy is met", Source{refused, Vouched}, Source{forged, Plain}, "two copies", "refused"},
		{"of two bundles", Source{refused, Vouched}, Source{forged, Unvouched}, "two copies", "refused"},
		{"held against nothing", Source{refused, Consistent}, Source{forged, Plain}, "two copies", "refused"},
		{"by who did not say", Source{refused, Unvouched}, Source{Redeemed: forged}, "two copies", "refused"},
		{"an early bundle", Source{awaited, Vouched}, Source{forged, Plain}, "has more answers", "awaited"},
		{"a late copy", Source{refused, Vouched}, Source{awaited, Plain}, "", "refused"},
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
			ss = append(ss, Source{r, standings[i]})
		}
		return Build(ss)
	}
	for _, test := range []struct {
		chain *Chain
		form  string
		says  string
		n     int
	}{
		{of(Plain, Vouched), "text", "standing  plain JSON: whom it asked", 1},
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
