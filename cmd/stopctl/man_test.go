package main

import (
	"flag"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var flagInManual = regexp.MustCompile(`\bFl ([\w-]+)`)

// TestManual holds man/stopctl.1 to the table of commands: the same commands in the same order, each with
// its own flags, and the exit codes.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../man/stopctl.1")
	if err != nil {
		t.Fatal(err)
	}
	synopsis := synopsisOf(part(t, string(b), "SYNOPSIS"))
	described := describedIn(part(t, string(b), "DESCRIPTION"))
	var names, order []string
	for _, c := range commands {
		names = append(names, c.name)
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setup(fs)
		flags := []string{}
		fs.VisitAll(func(f *flag.Flag) { flags = append(flags, f.Name) })
		if d := cmp.Diff(flags, synopsis[c.name]); d != "" {
			t.Errorf("%s: its flags (-) and those of the synopsis (+):\n%s", c.name, d)
		}
	}
	for _, d := range described {
		order = append(order, d.name)
		for _, f := range synopsis[d.name] {
			if !slices.Contains(d.mentioned, f) {
				t.Errorf("%s: -%s is not described", d.name, f)
			}
		}
		for _, f := range d.items {
			if !slices.Contains(synopsis[d.name], f) {
				t.Errorf("%s: -%s is described, and it has no such flag", d.name, f)
			}
		}
	}
	if d := cmp.Diff(names, order); d != "" {
		t.Errorf("commands of the table (-) and of the manual (+):\n%s", d)
	}
	if len(synopsis) != len(commands) {
		t.Errorf("the synopsis has commands that do not exist: %q", slices.Sorted(maps.Keys(synopsis)))
	}
	for i, code := range []int{exitDone, exitFailed, exitUsage, exitAltered, exitRefused} {
		if code != i {
			t.Errorf("exit code %d is %d", i, code)
		}
		if !strings.Contains(part(t, string(b), "EXIT STATUS"), "\n.It "+strconv.Itoa(code)+"\n") {
			t.Errorf("exit code %d is not in the manual", code)
		}
	}
}

// part returns one section of a manual page.
func part(t *testing.T, page, name string) string {
	_, rest, ok := strings.Cut(page, "\n.Sh "+name+"\n")
	if !ok {
		t.Fatalf("the manual has no section %q", name)
	}
	body, _, _ := strings.Cut(rest, "\n.Sh ")
	return body
}

// synopsisOf returns the flags of each command, sorted.
func synopsisOf(text string) map[string][]string {
	found := map[string][]string{}
	for form := range strings.SplitSeq(text, ".Nm\n.Cm ") {
		name, rest, ok := strings.Cut(form, "\n")
		if name = strings.TrimSpace(name); !ok && name == "" || strings.HasPrefix(name, ".") {
			continue
		}
		flags := append([]string{}, found[name]...)
		for _, m := range flagInManual.FindAllStringSubmatch(rest, -1) {
			flags = append(flags, m[1])
		}
		slices.Sort(flags)
		found[name] = slices.Compact(flags)
	}
	delete(found, "")
	return found
}

// A description is what the manual says of one command.
type description struct {
	name      string
	items     []string // flags with an item of their own
	mentioned []string
}

func describedIn(text string) []description {
	var ds []description
	for i, entry := range strings.Split(text, "\n.It Cm ") {
		if i == 0 {
			continue
		}
		name, rest, _ := strings.Cut(entry, "\n")
		d := description{name: name}
		for line := range strings.Lines(rest) {
			for _, m := range flagInManual.FindAllStringSubmatch(line, -1) {
				d.mentioned = append(d.mentioned, m[1])
				if strings.HasPrefix(line, ".It ") {
					d.items = append(d.items, m[1])
				}
			}
		}
		ds = append(ds, d)
	}
	return ds
}
