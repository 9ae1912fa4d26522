package main

import (
	"flag"
	"testing"

	"github.com/stopd/stopd/internal/completion"
)

var update = flag.Bool("update", false, "write deploy/completions anew")

// What shells complete is the program's flags.
func TestCompletions(t *testing.T) {
	fs := flag.NewFlagSet("stopd", flag.ContinueOnError)
	declare(fs)
	p := completion.Program{Name: "stopd", Commands: []completion.Command{{Flags: fs}}}
	p.Hold(t, "../../deploy/completions", *update)
}
