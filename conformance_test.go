package stop_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// normative marks the sentences of docs/protocol.md that need a row in docs/conformance.md wherever they stand. In lists and tables
// every item needs one.
var normative = regexp.MustCompile(`\b(MUST|SHOULD|MAY|[Nn]ever|[Aa]lways)\b`)

// A rule is a row of docs/conformance.md.
type rule struct {
	words, from string
	tests       []string
}

// A section is a heading and what stands below it, up to the next heading of any level: paragraphs, items of lists and rows of tables,
// each on one line.
type section struct {
	heading string
	blocks  []string
}

// TestConformance holds docs/conformance.md to docs/protocol.md and to the tests: it has the same sections, each of its rows quotes
// the section's own words and names tests that exist, and each rule of the section is quoted by one.
func TestConformance(t *testing.T) {
	protocol, page := sections(t, "docs/protocol.md"), sections(t, "docs/conformance.md")
	exists := testsOf(t)
	rows := 0
	var order []string
	for _, p := range page {
		i := slices.IndexFunc(protocol, func(s section) bool { return s.heading == p.heading })
		rules := rulesOf(t, p)
		if i < 0 && p.heading != "The thesis" {
			t.Errorf("docs/protocol.md has no section %q", p.heading)
			continue
		}
		if len(rules) == 0 {
			t.Errorf("%s: no rows", p.heading)
		}
		rows += len(rules)
		for _, r := range rules {
			if len(r.tests) == 0 || r.from == "" || len(r.words) < 4 {
				t.Errorf("%s: %q has no source or no test, or quotes nothing", p.heading, r.words)
			}
			for _, name := range r.tests {
				if !exists.have(name) {
					t.Errorf("%s: %q: there is no test %s", p.heading, r.words, name)
				}
			}
		}
		if i >= 0 {
			order = append(order, p.heading)
			held(t, protocol[i], rules)
		}
	}
	var headings []string
	for _, s := range protocol {
		headings = append(headings, s.heading)
	}
	if !slices.Equal(order, headings) {
		t.Errorf("the sections are\n%q, not\n%q", order, headings)
	}
	if rows < 150 {
		t.Errorf("only %d rows were looked at", rows)
	}
}

// held checks that rules quote their section, and that each rule of the section is quoted.
func held(t *testing.T, s section, rules []rule) {
	said, needed := sentencesOf(s)
	all := strings.Join(said, "\n")
	for _, r := range rules {
		if !strings.Contains(all, r.words) {
			t.Errorf("%s: docs/protocol.md does not say %q", s.heading, r.words)
		}
	}
	for _, n := range needed {
		if !slices.ContainsFunc(rules, func(r rule) bool { return strings.Contains(n, r.words) }) {
			t.Errorf("%s: no row has %q", s.heading, n)
		}
	}
}

var (
	linked = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	item   = regexp.MustCompile(`^(- |\d+\. )`)
)

// sections cuts a page at its headings. Code is left out, and links are their text.
func sections(t *testing.T, file string) (all []section) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var now section
	code := false
	end := func() {
		if len(now.blocks) > 0 && now.heading != "" {
			all = append(all, now)
		}
	}
	goesOn := false // the last block does
	for line := range strings.Lines(string(b)) {
		line = linked.ReplaceAllString(strings.TrimSpace(line), "$1")
		fence := strings.HasPrefix(line, "```")
		code = code != fence
		switch {
		case code, fence, line == "":
			goesOn = false
		case strings.HasPrefix(line, "# "): // the page's own
		case strings.HasPrefix(line, "#"):
			end()
			now, goesOn = section{heading: strings.TrimLeft(line, "# ")}, false
		case goesOn && !strings.HasPrefix(line, "|") && !item.MatchString(line):
			now.blocks[len(now.blocks)-1] += " " + line
		default:
			now.blocks, goesOn = append(now.blocks, line), true
		}
	}
	end()
	return all
}

// rowsOf gives the rows of a section's tables without their heads.
func rowsOf(s section) (rows []string) {
	for i, b := range s.blocks {
		next := i+1 < len(s.blocks) && strings.HasPrefix(s.blocks[i+1], "|---")
		if strings.HasPrefix(b, "|") && !strings.HasPrefix(b, "|---") && !next {
			rows = append(rows, b)
		}
	}
	return rows
}

// sentencesOf gives the sentences of a section and the rows of its tables, and those of them that need a row in docs/conformance.md. Of
// an item of a list that is at least the first.
func sentencesOf(s section) (said, needed []string) {
	said = rowsOf(s)
	needed = slices.Clone(said)
	for _, b := range s.blocks {
		if strings.HasPrefix(b, "|") {
			continue
		}
		for i, sentence := range strings.Split(item.ReplaceAllString(b, ""), ". ") {
			said = append(said, sentence)
			if i == 0 && item.MatchString(b) || normative.MatchString(sentence) {
				needed = append(needed, sentence)
			}
		}
	}
	return said, needed
}

var quoted = regexp.MustCompile("`([^`]+)`")

// rulesOf reads the rows of a section's table: words, source, tests.
func rulesOf(t *testing.T, s section) (rules []rule) {
	t.Helper()
	for _, row := range rowsOf(s) {
		cells := strings.Split(row, "|")
		if len(cells) != 5 {
			t.Errorf("%s: not three cells in %q", s.heading, row)
			continue
		}
		r := rule{words: strings.TrimSpace(cells[1]), from: strings.TrimSpace(cells[2])}
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			r.tests = append(r.tests, m[1])
		}
		rules = append(rules, r)
	}
	return rules
}

// tests are those of the module: by "directory.TestName", the names that their subtests can have.
type tests map[string]map[string]bool

// testsOf parses all test files, whatever system they are for. A subtest is named by a string of its test's file, by a vector of
// testdata/vectors.json, or by a script of testdata/script.
func testsOf(t *testing.T) tests {
	t.Helper()
	all := tests{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		names := namesIn(file)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") && !strings.HasPrefix(f.Name.Name, "Fuzz"):
			case dir == ".":
				all["stop."+f.Name.Name] = names
			default:
				all[dir+"."+f.Name.Name] = names
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	vectors, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"name": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(vectors, -1) {
		for _, test := range []string{"Request", "Reply", "Token"} {
			all["stop.Test"+test+"Vectors"][unquoted(string(m[1]))] = true
		}
	}
	scripts, err := filepath.Glob("cmd/*/testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		dir, name, _ := strings.Cut(filepath.ToSlash(path), "/testdata/script/")
		all[dir+".TestScripts"][strings.TrimSuffix(name, ".txtar")] = true
	}
	return all
}

// namesIn gives the strings of a file.
func namesIn(f *ast.File) map[string]bool {
	found := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			found[unquoted(l.Value)] = true
		}
		return true
	})
	return found
}

func unquoted(literal string) string {
	s, err := strconv.Unquote(literal)
	if err != nil {
		return literal
	}
	return s
}

// have reports whether there is a test "directory.TestName", with a subtest if one follows after a slash.
func (all tests) have(name string) bool {
	dir, test, _ := strings.Cut(name, ".")
	test, sub, hasSub := strings.Cut(test, "/")
	names, ok := all[dir+"."+test]
	return ok && (!hasSub || names[sub])
}
