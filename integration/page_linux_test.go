package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A step is a command of a page, as somebody types it at a prompt, and what it prints.
//
//	root@stone# stopctl token report.json
//	srngzw5w2ge7tgnezcqtyygfnqiijz6geegnf6ww6re54u6735sjq
type step struct {
	before     string // the page's text up to the command's output, its prompt and the command among it
	user, host string
	command    string
	output     string
}

var prompt = regexp.MustCompile(`^([a-z]+)@([a-z]+)[$#] (.*)$`)

// parsePage parses the console blocks of a page. The rest of it, behind the last output, is returned too.
func parsePage(text string) (steps []step, rest string) {
	var before strings.Builder
	var s *step
	inside, continued := false, false
	for line := range strings.Lines(text) {
		bare := strings.TrimSuffix(line, "\n")
		switch m := prompt.FindStringSubmatch(bare); {
		case continued:
			continued = strings.HasSuffix(bare, `\`)
			s.before, s.command = s.before+line, s.command+"\n"+bare
		case inside && m != nil:
			steps = append(steps, step{before: before.String() + line, user: m[1], host: m[2], command: m[3]})
			s = &steps[len(steps)-1]
			continued = strings.HasSuffix(bare, `\`)
			before.Reset()
		case inside && bare != "```" && s != nil:
			s.output += line
		default:
			if inside = bare == "```console" || inside && bare != "```"; !inside {
				s = nil
			}
			before.WriteString(line)
		}
	}
	return steps, before.String()
}

// Words of a page that are others in each run, by their kind. What the first kind matches is the same in each.
var kinds = []struct {
	name, form string
	// bound tells that whoever has been one in an earlier output is the same one in all.
	bound bool
}{
	{"", `\d+\.\d+\.\d+\.\d+|:\d{1,4}\b|\d+ of the \d+|\(\d{4}\)|(?m:^\d+\. )|(?m:^\d$)`, false},
	{"token", `\bs[a-z2-7]{52}\b`, true},
	{"prefix", `\bs[a-z2-7]{9}@`, true},
	{"log", `\b[a-z]+/stopd/[0-9a-f]{8}\b`, true},
	{"key", `\b[0-9a-f]{8}\+[A-Za-z0-9+/=]{20,}|AAAA[A-Za-z0-9+/=]{40,}|SHA256:[A-Za-z0-9+/]{43}`, true},
	{"system", `Debian GNU/Linux \d+ \([a-z]+\)`, false},
	{"time", `[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: UTC|Z|[+-]\d\d:?\d\d)?)?|\b\d\d:\d\d:\d\d(?:\.\d+)?`, false},
	{"port", `:\d{5}\b`, true},
	{"hash", `\b[0-9a-f]{32,64}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}`, false},
	{"number", `(?:[+-]\b\d{1,5}|\b\d+)(?:\.\d+)?(?:[a-z]{1,2})?\b`, false}, // a sign may be the plus before a key, whose eight digits may be such
}

var volatile = func() *regexp.Regexp {
	var forms []string
	for _, k := range kinds {
		forms = append(forms, "("+k.form+")")
	}
	return regexp.MustCompile(strings.Join(forms, "|"))
}()

// A word is one that is another in each run.
type word struct {
	kind int
	text string
}

// shape is a text with its volatile words replaced by their kinds, and white space by one blank: with the width of
// numbers, that of tables varies.
func shape(text string) (string, []word) {
	var words []word
	var b strings.Builder
	end := 0
	for _, m := range volatile.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(text[end:m[0]])
		end = m[1]
		for kind := range kinds {
			if m[2*kind+2] < 0 {
				continue
			}
			if kinds[kind].name == "" {
				b.WriteString(text[m[0]:m[1]])
				break
			}
			fmt.Fprintf(&b, "<%s>", kinds[kind].name)
			words = append(words, word{kind, text[m[0]:m[1]]})
			break
		}
	}
	b.WriteString(text[end:])
	return strings.Join(strings.Fields(b.String()), " "), words
}

// A rerun knows which words of a page are which of this run.
type rerun map[string]string

// same compares what the page says with what was printed, and learns from it. It returns how they differ.
func (r rerun) same(page, printed string) string {
	want, wantWords := shape(page)
	got, gotWords := shape(printed)
	if want != got {
		return cmp.Diff(strings.Fields(want), strings.Fields(got))
	}
	for i, w := range wantWords {
		is := gotWords[i].text
		if known, ok := r[w.text]; ok && known != is && kinds[w.kind].bound {
			return fmt.Sprintf("%q of the page was %q before, and is %q", w.text, known, is)
		}
		r.learn(w, is)
	}
	return ""
}

func (r rerun) learn(w word, is string) {
	switch kinds[w.kind].name {
	case "port": // commands name it by itself
		r[w.text[1:]] = is[1:]
	case "prefix":
		r[strings.TrimSuffix(w.text, "@")] = strings.TrimSuffix(is, "@")
	case "number":
		return
	}
	r[w.text] = is
}

// write gives the output for the page, whatever it said before. The words of each kind are taken to be in the same order.
func (r rerun) write(page, printed string) string {
	_, was := shape(page)
	_, is := shape(printed)
	for kind := range kinds {
		other := func(w word) bool { return w.kind != kind }
		is := slices.DeleteFunc(slices.Clone(is), other)
		for i, w := range slices.DeleteFunc(slices.Clone(was), other) {
			if i < len(is) {
				r.learn(w, is[i].text)
			}
		}
	}
	return printed
}

var inCommands = regexp.MustCompile(`\bs[a-z2-7]{9,52}\b|\d{4}-\d\d-\d\dT[0-9:.+Z-]+|\b\d{5}\b`)

// command is a command of the page with the words of this run.
func (r rerun) command(text string) string {
	return inCommands.ReplaceAllStringFunc(text, func(w string) string {
		if is, ok := r[w]; ok {
			return is
		}
		return w
	})
}

func TestPage(t *testing.T) {
	const a, b = "srngzw5w2ge7tgnezcqtyygfnqiijz6geegnf6ww6re54u6735sjq", "swjgv7nd3n5utkshwxxyuz7xbgdismckfqeesfmxcp274ytkp46dq"
	text := "A page.\n```console\nroot@stone# one \\\n    two\n" + a + "\nroot@inn# three\n```\nend\n```\nroot@inn# no command\n```\n"
	steps, rest := parsePage(text)
	want := []step{
		{before: "A page.\n```console\nroot@stone# one \\\n    two\n", user: "root", host: "stone", command: "one \\\n    two", output: a + "\n"},
		{before: "root@inn# three\n", user: "root", host: "inn", command: "three"},
	}
	if d := cmp.Diff(want, steps, cmp.AllowUnexported(step{})); d != "" || rest != "```\nend\n```\nroot@inn# no command\n```\n" {
		t.Errorf("steps (-want +got):\n%srest %q", d, rest)
	}
	r := rerun{}
	for _, tt := range []struct {
		page, printed string
		same          bool
	}{
		{"192.0.2.1:40778 -> 192.0.2.2:22 at 2026-11-23 08:02:26 UTC", "192.0.2.1:50000 -> 192.0.2.2:22 at 2026-11-23 08:02:27 UTC", true},
		{"192.0.2.1:40778 -> 192.0.2.2:22", "192.0.2.1:50001 -> 192.0.2.2:22", false}, // it was 50000
		{"192.0.2.1:40778 -> 192.0.2.2:22", "192.0.2.3:50000 -> 192.0.2.2:22", false},
		{"192.0.2.1:40778 -> 192.0.2.2:22", "192.0.2.1:50000 -> 192.0.2.2:23", false},
		{"token " + a, "token " + b, true},
		{"token " + a, "token " + a, false},
		{"home/stopd/b5bc72e2+0370366a+AXI2E9wjvkJPoyeYJtaA5UKbYc6C/f/jH/t+i4Nu2Rl0", "home/stopd/5b763755+c6813710+AUv7mgeHdGY2LXhDr7j1L4tdkYN1PUAycQ9GQoOgD5Y/", true},
		{"offset -0.5 s", "offset +12.25 s", true},
		{"pid 31", "pid   4711", true},
		{"2 of the 3 witnesses", "1 of the 3 witnesses", false},
		{"1 of the 1", "1 of the 1", true},
		{"mallory (1001)", "mallory (1002)", false},
		{"3\n", "0\n", false},
		{"proven", "not proven", false},
	} {
		if d := r.same(tt.page, tt.printed); (d == "") != tt.same {
			t.Errorf("%q, %q: %q", tt.page, tt.printed, d)
		}
	}
	if got := r.command("stopctl request 40778 22 " + a); got != "stopctl request 50000 22 "+b {
		t.Errorf("command %q", got)
	}
}
