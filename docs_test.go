package stop_test

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// TestLinks follows the links of all pages to files of the repository, and to the headings of pages.
func TestLinks(t *testing.T) {
	followed := 0
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(withoutCode(t, page), -1) {
			to, err := url.Parse(m[1])
			if err != nil || to.Scheme != "" {
				continue // of the web
			}
			followed++
			at := page
			if to.Path != "" {
				at = filepath.Join(filepath.Dir(page), filepath.FromSlash(to.Path))
			}
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if to.Fragment != "" && !anchors(t, at)[to.Fragment] {
				t.Errorf("%s: %s has no heading %q", page, at, to.Fragment)
			}
		}
	}
	if followed < 100 {
		t.Errorf("only %d links were followed", followed)
	}
}

// TestNamedTests looks for the tests that pages name, as `directory.TestName/subtest`.
func TestNamedTests(t *testing.T) {
	exist := testsOf(t)
	named := 0
	for _, page := range pages(t) {
		for _, m := range regexp.MustCompile("`([a-z/]+\\.(?:Test|Fuzz)[A-Z][^`]*)`").FindAllStringSubmatch(withoutCode(t, page), -1) {
			named++
			if !exist.have(m[1]) {
				t.Errorf("%s: there is no test %s", page, m[1])
			}
		}
	}
	if named < 300 {
		t.Errorf("only %d tests are named", named)
	}
}

// pages are all of the repository.
func pages(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "*/*.md", "*/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func withoutCode(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(string(b), "")
}

// anchors gives what the headings of a page are linked to by: in lower case, without punctuation, with a hyphen for each blank.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(withoutCode(t, page), -1) {
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return found
}
