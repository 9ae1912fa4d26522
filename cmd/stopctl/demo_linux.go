package main

import (
	"context"
	"flag"

	"github.com/stopd/stopd/internal/netlab"
	"github.com/stopd/stopd/internal/netlab/demo"
)

// beginLab lets the demonstration's hosts, which run this program again, begin.
func beginLab() { netlab.Init() }

func setupDemo(*flag.FlagSet) func(context.Context, stdio, []string) error {
	return func(ctx context.Context, std stdio, _ []string) error { return demo.Run(ctx, std.out) }
}
