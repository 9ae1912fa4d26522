package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"

	"github.com/stopd/stopd/internal/daemon"
)

func setupExplain(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	config := fs.String("config", "", "the daemon's configuration `file` (default: the defaults)")
	return func(ctx context.Context, std stdio, args []string) error {
		local, remote, err := localFirst(args)
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

// localFirst are the ends of a connection of this host, as two arguments or as a line that somebody pasted.
func localFirst(args []string) (local, remote netip.AddrPort, err error) {
	if len(args) == 1 {
		f, err := pasted(args[0])
		if err != nil {
			return local, remote, err
		}
		// Both are this host's, of a connection within it, or neither, of one of another network namespace: then as it is written.
		if own := ownAddresses(); own[f.Destination.Addr()] && !own[f.Source.Addr()] {
			return f.Destination, f.Source, nil
		}
		return f.Source, f.Destination, nil
	}
	if local, err = daemon.ParseEnd(args[0]); err != nil {
		return local, remote, err
	}
	remote, err = daemon.ParseEnd(args[1])
	return local, remote, err
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
