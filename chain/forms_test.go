package chain

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// rowOf makes the reports of hosts in a row, each of which asked the one before it.
func rowOf(n int) []report.Redeemed {
	var rs []report.Redeemed
	for i := 1; i <= n; i++ {
		var asked []stop.Traceback
		if i > 1 {
			asked = append(asked, timed(previous(fmt.Sprintf("198.51.100.%d:%d", i-1, 40000+i-1), fmt.Sprintf("198.51.100.%d:22", i), "token", fmt.Sprintf("s%03d", i-1))))
		}
		rs = append(rs, redeemed(fmt.Sprintf("s%03d", i), fmt.Sprintf("host%d.example.org", i),
			fmt.Sprintf("198.51.100.%d:%d", i, 40000+i), fmt.Sprintf("198.51.100.%d:22", i+1), asked...))
	}
	return rs
}

// timed gives a question the times at which it was sent and answered: around that at which hosts are asked.
func timed(t stop.Traceback) stop.Traceback {
	t.Sent = time.Date(2001, 4, 1, 12, 0, 0, 0, time.UTC)
	t.Answered = t.Sent.Add(300 * time.Millisecond)
	return t
}

// asks adds a question of a host, and the candidate that it is about.
func asks(r *report.Redeemed, t stop.Traceback, reasons ...string) {
	r.Traceback = append(r.Traceback, t)
	r.Report.Previous = append(r.Report.Previous, trace.Previous{Remote: t.Previous.Remote, Local: t.Previous.Local,
		Direction: host.Inbound, Reasons: append([]string{trace.ReasonInbound}, reasons...), Corroborated: true})
}

// everything is a chain that has all that can be drawn.
func everything() []report.Redeemed {
	rs := rowOf(8)
	rs[5].Report.Connection.Direction = host.Inbound
	rs[5].Report.Request.Time = rs[5].Report.Request.Time.Add(3*time.Hour + 7*time.Minute)
	for i := 5; i < 7; i++ {
		rs[i].Report.Host.Clock = &host.Clock{Synchronised: true, Error: 0.01}
	}
	asks(&rs[7], previous("203.0.113.77:5", "198.51.100.8:22", "legacy", "5 , 22 : USERID : UNIX : alice"))
	asks(&rs[7], previous("10.0.0.7:61000", "198.51.100.8:22", "none", "ask 10.0.0.7:113: no route to host"))
	asks(&rs[6], previous("203.0.113.78:5555", "198.51.100.7:22", "token", "s900"))
	notAsked := previous("203.0.113.79:5555", "198.51.100.7:2222", "none", "not asked: policy")
	notAsked.Asked = false
	asks(&rs[6], notAsked)
	asks(&rs[4], previous("198.51.100.7:61000", "198.51.100.5:8080", "error", "NO-USER"))
	asks(&rs[3], previous("[2001:db8::7]:61000", "[2001:db8::4]:22", "none", "ask [2001:db8::7]:113: connection refused"))
	rs[2].Report.Connection, rs[2].Report.Processes, rs[2].Report.Previous = nil, nil, nil
	rs[2].Traceback = nil
	// The gateway does not ask the machine behind it, which somebody else did.
	behind := netip.MustParseAddrPort("10.0.0.2:40002")
	rs[1].Report.Request.Local, rs[1].Report.Request.Remote, rs[1].Report.Request.Requester = behind, rs[2].Report.Request.Remote, behind.Addr()
	nat := previous(behind.String(), rs[2].Report.Request.Remote.String(), "none", "not asked: its connection leaves the host from another network namespace")
	nat.Asked = false
	asks(&rs[2], nat, trace.ReasonNAT)
	rs[1].Report.Host.Name = "a-host-with-a-very-long-name-in-the-accounting-department.emea.corp.example.org"
	return append(rs[1:], redeemed("sz1", "elsewhere", "203.0.113.1:5", "203.0.113.2:6"))
}

// fan has hosts that each lead to one of the hosts before, by threes.
func fan(n int) []report.Redeemed {
	var rs []report.Redeemed
	for i := range n {
		var asked []stop.Traceback
		for j := 3*i + 1; j <= 3*i+3 && j < n; j++ {
			asked = append(asked, previous(fmt.Sprintf("198.51.100.%d:%d", j, 50000+j), fmt.Sprintf("198.51.100.%d:22", i), "token", fmt.Sprintf("s%03d", j)))
		}
		to := fmt.Sprintf("198.51.100.%d:22", (i-1)/3)
		if i == 0 {
			to = "203.0.113.1:22"
		}
		rs = append(rs, redeemed(fmt.Sprintf("s%03d", i), fmt.Sprintf("n%d", i), fmt.Sprintf("198.51.100.%d:%d", i, 50000+i), to, asked...))
	}
	return rs
}

var forms = map[string]func(*Chain) (string, error){
	"svg":  func(c *Chain) (string, error) { return SVG(c), nil },
	"dot":  func(c *Chain) (string, error) { return DOT(c), nil },
	"text": func(c *Chain) (string, error) { return Text(c), nil },
	"json": JSON,
	"csv":  CSV,
	"ecs":  ECS,
	"stix": STIX,
}

// The pictures are looked at when they change: rsvg-convert chain/testdata/forms/NAME.svg.
func TestForms(t *testing.T) {
	for name, tt := range map[string]struct {
		in    []report.Redeemed
		forms []string
	}{
		"three":      {rowOf(2), []string{"svg", "dot", "json", "csv"}},
		"everything": {everything(), []string{"svg", "dot", "json", "csv", "text"}},
		"forty":      {rowOf(39), []string{"svg"}},
		"fan":        {fan(40), []string{"svg"}},
	} {
		for _, form := range tt.forms {
			t.Run(name+" "+form, func(t *testing.T) {
				got, err := forms[form](Build(Of(tt.in...)))
				if err != nil {
					t.Fatal(err)
				}
				golden(t, filepath.Join("testdata/forms", name+"."+form), got)
			})
		}
	}
}

// golden holds what was made against a file, or writes the file where that was asked for.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

// checkForms checks that every form of a chain is what it says that it is, whoever wrote the reports.
func checkForms(t *testing.T, c *Chain) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, form := range forms {
		text, err := form(c)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !utf8.ValidString(text) {
			t.Errorf("%s is not UTF-8", name)
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\r' }); i >= 0 {
			t.Errorf("%s has %q", name, text[i:min(i+10, len(text))])
		}
		all[name] = text
	}
	checkSVG(t, all["svg"])
	checkDOT(t, all["dot"])
	checkCSV(t, all["csv"])
	var v any
	if err := json.Unmarshal([]byte(all["json"]), &v); err != nil {
		t.Error(err)
	}
	return all
}

var (
	elements   = regexp.MustCompile(`^(svg|title|desc|style|rect|g|text|path|circle)$`)
	attributes = regexp.MustCompile(`^(xmlns|width|height|viewBox|role|aria-labelledby|id|class|x|y|rx|cx|cy|r|d|text-anchor)$`)
	namesWord  = regexp.MustCompile(`^[a-z0-9 -]+$`)
)

// checkSVG checks that a picture is well-formed, refers to nothing and runs nothing: of a report there are texts alone.
func checkSVG(t *testing.T, s string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("svg: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !elements.MatchString(e.Name.Local) {
			t.Errorf("svg has <%s>", e.Name.Local)
		}
		for _, a := range e.Attr {
			if !attributes.MatchString(a.Name.Local) || a.Name.Local == "class" && !namesWord.MatchString(a.Value) || strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("svg: <%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
	if strings.Contains(style, "url(") || strings.Contains(style, "@import") {
		t.Error("the style refers to something")
	}
}

func checkCSV(t *testing.T, s string) {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(s)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		for _, cell := range r {
			if cell != "" && strings.ContainsRune("=+@\t\r＝＋－＠", []rune(cell)[0]) || strings.HasPrefix(cell, "-") && !regexp.MustCompile(`^-[0-9.]+$`).MatchString(cell) {
				t.Errorf("a formula: %q", cell)
			}
		}
	}
	if strings.Count(s, "\r\n") < len(records) {
		t.Error("lines do not end in CRLF")
	}
}

var dotToken = regexp.MustCompile(`^(?:[ \n]+|"(?:[^"\\]|\\[\\"n])*"|->|[A-Za-z_][A-Za-z0-9_]*|[0-9]+(?:\.[0-9]+)?|[{}\[\]=;,])`)

// checkDOT checks that a graph follows the grammar of DOT, as far as DOT needs it: statements of nodes, edges,
// attributes and subgraphs.
func checkDOT(t *testing.T, s string) {
	t.Helper()
	var tokens []string
	for s != "" {
		m := dotToken.FindString(s)
		if m == "" {
			t.Fatalf("dot: %q", s[:min(len(s), 40)])
		}
		if s = s[len(m):]; strings.Trim(m, " \n") != "" {
			tokens = append(tokens, m)
		}
	}
	word := regexp.MustCompile(`^["A-Za-z_0-9]`)
	kind := func(tok string) string {
		if word.MatchString(tok) && tok != "subgraph" && tok != "digraph" {
			return "w"
		}
		return tok
	}
	var kinds strings.Builder
	for _, tok := range tokens {
		kinds.WriteString(kind(tok) + " ")
	}
	list := `\[ (?:w = w (?:, )?)*\] `
	statement := regexp.MustCompile(`^(?:w = w ; |w (?:-> w )?(?:` + list + `)?; )`)
	rest, ok := strings.CutPrefix(kinds.String(), "digraph w { ")
	for depth := 1; ok && rest != ""; {
		switch m := statement.FindString(rest); {
		case m != "":
			rest = rest[len(m):]
		case strings.HasPrefix(rest, "subgraph w { "):
			rest, depth = rest[len("subgraph w { "):], depth+1
		case strings.HasPrefix(rest, "} "):
			rest, depth = rest[2:], depth-1
			ok = depth > 0 || rest == ""
		default:
			ok = false
		}
	}
	if !ok {
		t.Errorf("dot: not a statement: %.60s", rest)
	}
}
