package main

import (
	"flag"
	"testing"

	"github.com/stopd/stopd/internal/completion"
)

var update = flag.Bool("update", false, "write deploy/completions anew")

// What shells complete is the table of commands and its flags.
func TestCompletions(t *testing.T) {
	p := completion.Program{Name: "stopctl"}
	for _, c := range commands {
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setup(fs)
		p.Commands = append(p.Commands, completion.Command{Name: c.name, Does: c.does, Flags: fs})
	}
	p.Hold(t, "../../deploy/completions", *update)
}
