package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"github.com/stopd/stopd/internal/daemon"
)

func setupExplain(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	config := fs.String("config", "", "the daemon's configuration `file` (default: the defaults)")
	return func(ctx context.Context, std stdio, args []string) error {
		local, err := daemon.ParseEnd(args[0])
		if err != nil {
			return &exitError{exitUsage, err}
		}
		remote, err := daemon.ParseEnd(args[1])
		if err != nil {
			return &exitError{exitUsage, err}
		}
		cfg := daemon.Defaults()
		if *config != "" {
			if cfg, err = daemon.Load(*config); err != nil {
				return err
			}
		}
		text, err := daemon.Explain(ctx, cfg, local, remote)
		if err != nil {
			return err
		}
		_, err = io.WriteString(std.out, text)
		return err
	}
}

func setupRecord(*flag.FlagSet) func(context.Context, stdio, []string) error {
	return func(ctx context.Context, std stdio, _ []string) error {
		r, err := daemon.Record(ctx)
		if err != nil {
			return fmt.Errorf("record host: %w", err)
		}
		e := json.NewEncoder(std.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
}
