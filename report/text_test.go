package report_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stopd/stopd/report"
)

// checkText checks that nothing in a text can draw on a terminal.
func checkText(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U in %q", r, text)
		}
	}
}

// Whatever names hold, they neither draw on a terminal nor add a line.
func TestTextIsClean(t *testing.T) {
	lines := strings.Count(report.Text(fullReport(func() string { return "x" })), "\n")
	for _, s := range append([]string{"\x9b31m", "a\xffb", "\xe2\x80"}, hostile...) {
		if s == "" {
			continue // unknown: there are fewer lines
		}
		text := report.Text(fullReport(func() string { return s }))
		checkText(t, text)
		if n := strings.Count(text, "\n"); n != lines {
			t.Errorf("with names %q there are %d lines, want %d", s, n, lines)
		}
	}
	// Names that look like a line of the report stay within theirs.
	text := report.Text(named("a\n2: sshd [22]\n- END -"))
	if !strings.Contains(text, `1: a\n2: sshd [22]\n- END - [1]`) || strings.Count(text, "\n- END -\n") != 1 {
		t.Errorf("a name forged a line:\n%s", text)
	}
}

func TestTextOfUnknowns(t *testing.T) {
	const want = "- BEGIN -\n\nHOST INFORMATION\n\n\nREQUEST INFORMATION\n\n- END -\n"
	if got := report.Text(report.Report{}); got != want {
		t.Errorf("text of nothing:\n%s", got)
	}
	for _, kind := range []string{report.KindNone, report.KindDuplicate} {
		text := report.Text(report.Report{Kind: kind, Reason: "because", SameAs: "token"})
		if want := map[string]string{report.KindNone: "Nothing saved: because\n", report.KindDuplicate: "Duplicate of: token\n"}[kind]; !strings.Contains(text, want) {
			t.Errorf("%s: no %q in\n%s", kind, want, text)
		}
	}
}
