package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumented parses every call of the programs and of make that a page shows, in a block or in a sentence, as the program
// would: its subcommand exists, and so do its flags with such values. Calls that stand alone in a block have as many arguments as the
// command takes. None is run here: the tests between hosts run those of docs/operations.md and docs/investigating.md.
func TestDocumented(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../../README.md", "../../CONTRIBUTING.md", "../../SECURITY.md")
	makefile := read(t, "../../Makefile")
	parsed := map[string]int{}
	for _, page := range pages {
		for _, c := range calls(read(t, page)) {
			parsed[c.program]++
			ok, why := true, error(nil)
			switch c.program {
			case "make":
				for _, target := range c.args {
					if !strings.Contains(target, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(target)+`:`).MatchString(makefile) {
						ok = false
					}
				}
			case "stopd":
				for _, a := range c.args { // -config FILE is the only one with a value
					ok = ok && (!strings.HasPrefix(a, "-") || strings.Contains(read(t, "../../man/stopd.8"), "\n.It Fl "+a[1:]))
				}
			case "stopctl":
				ok, why = c.known()
			}
			if !ok {
				t.Errorf("%s: %s %q: %v", filepath.Base(page), c.program, c.args, why)
			}
		}
	}
	if parsed["stopctl"] < 60 || parsed["stopd"] < 5 || parsed["make"] < 8 {
		t.Errorf("only so many calls were parsed: %v", parsed)
	}
}

// A call is one of a program, as a page shows it.
type call struct {
	program string
	args    []string
	whole   bool // in a block, and not in a sentence, which may leave something out
}

// calls finds those of a page.
func calls(page string) (found []call) {
	fenced := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced || strings.HasPrefix(line, "    ") {
			for _, part := range commandsOf(line) {
				found = append(found, callOf(part, true)...)
			}
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			for _, part := range commandsOf(m[1]) {
				found = append(found, callOf(part, false)...)
			}
		}
	}
	return found
}

// commandsOf splits a command line into its commands, without comments and the prompt.
func commandsOf(line string) []string {
	line = regexp.MustCompile(`^\s*(\S*[#$] )?`).ReplaceAllString(line, "")
	line, _, _ = strings.Cut(line, "  #")
	return regexp.MustCompile(`\s*(?:\|\|?|&&|;|&|\(|\))\s*`).Split(line, -1)
}

var word = regexp.MustCompile(`"[^"]*"|'[^']*'|[^\s"']+`)

// callOf is the call that a command is, if it is one.
func callOf(command string, whole bool) []call {
	var args []string
	for _, w := range word.FindAllString(command, -1) {
		if w[0] == '>' || w[0] == '<' {
			break
		}
		args = append(args, strings.Trim(w, `"'`))
	}
	for len(args) > 0 && (args[0] == "sudo" || strings.Contains(args[0], "=")) {
		args = args[1:]
	}
	if len(args) == 0 {
		return nil
	}
	program := filepath.Base(args[0])
	if program != "stopctl" && program != "stopd" && program != "make" {
		return nil
	}
	if len(args) > 1 && (strings.HasSuffix(args[1], ":") || strings.HasSuffix(args[1], ",")) || strings.HasSuffix(args[0], "/") {
		return nil // what the program says, or a directory
	}
	return []call{{program, args[1:], whole}}
}

// known says whether stopctl would take a call for one of its own.
func (c call) known() (bool, error) {
	if len(c.args) == 0 || slices.Contains([]string{"-h", "COMMAND", "help"}, c.args[0]) {
		return true, nil
	}
	i := slices.IndexFunc(commands, func(known command) bool { return known.name == c.args[0] })
	if i < 0 {
		return false, nil
	}
	fs := flag.NewFlagSet(c.args[0], flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	commands[i].setup(fs)
	err := fs.Parse(c.args[1:])
	if err != nil && !c.whole && strings.HasPrefix(err.Error(), "flag needs an argument") {
		err = nil // a sentence names the flag
	}
	n := fs.NArg()
	counts := !c.whole || slices.Contains(c.args, "...") || n >= commands[i].min && (commands[i].max < 0 || n <= commands[i].max)
	return err == nil && counts, err
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
