package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/stopd/stopd/internal/tokens"
	"github.com/stopd/stopd/internal/watch"
)

const watchConfig = "/etc/stopd/watch.toml"

func setupWatch(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	config := fs.String("config", watchConfig, "the `file` with the rules; see stopctl(1)")
	asJSON := fs.Bool("json", false, "print each answer as a JSON object, one a line")
	stdin := fs.Bool("stdin", false, "read lines from the standard input until it ends, in any form that explain takes")
	tracked := fs.Bool("conntrack", false, "watch every connection that this host's connection tracking has (Linux, root)")
	var eve, zeek many
	fs.Var(&eve, "eve", "follow a log of Suricata in EVE format: a `file`, or unix:PATH or unixgram:PATH (may be repeated)")
	fs.Var(&zeek, "zeek", "follow a `log` of Zeek, as JSON or in columns (may be repeated)")
	return func(ctx context.Context, std stdio, _ []string) error {
		var inputs []watch.Input
		for _, path := range eve {
			inputs = append(inputs, watch.EVE(path))
		}
		for _, path := range zeek {
			inputs = append(inputs, watch.Zeek(path))
		}
		if *tracked {
			inputs = append(inputs, watch.Conntrack())
		}
		if *stdin {
			inputs = append(inputs, watch.Lines(os.Stdin))
		}
		if len(inputs) == 0 {
			return usageError("-conntrack, -eve, -zeek or -stdin is needed")
		}
		cfg, err := watch.Load(*config)
		if err != nil {
			return err
		}
		store, err := tokens.Open(ctx, cfg.Tokens, cfg.CommunitySeed)
		if err != nil {
			return err
		}
		defer store.Close()
		out := &progressLine{std: std, live: isTerminal(std.err)}
		log := slog.New(slog.NewTextHandler(out, nil))
		var failed error
		w := watch.New(cfg, store, log, func(r tokens.Record) {
			out.hide()
			if err := printRecord(std.out, r, cfg.CommunitySeed, *asJSON); err != nil && failed == nil {
				failed = err
				log.Error("answers are not printed any more", "error", err)
			}
		})
		stop := out.every(time.Second, w.Counts.Summary)
		err = w.Run(ctx, inputs...)
		stop()
		fmt.Fprintf(std.err, "stopctl watch: %s\n", w.Counts.Summary())
		if err == nil {
			err = failed
		}
		return err
	}
}

// A progressLine is the last line of a terminal, which is written anew as things go on. What else goes to the standard error goes
// through it.
type progressLine struct {
	std  stdio
	live bool

	mu    sync.Mutex
	shown bool
}

const clearLine = "\r\x1b[K"

// Write writes a line of the log.
func (p *progressLine) Write(b []byte) (int, error) {
	p.hide()
	return p.std.err.Write(b)
}

// hide takes the line away.
func (p *progressLine) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.std.err, clearLine)
		p.shown = false
	}
}

// every shows text now and then, on a terminal, until it is stopped.
func (p *progressLine) every(d time.Duration, text func() string) (stop func()) {
	if !p.live {
		return func() {}
	}
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-over:
				p.hide()
				return
			case <-tick.C:
				p.mu.Lock()
				fmt.Fprint(p.std.err, clearLine, text())
				p.shown = true
				p.mu.Unlock()
			}
		}
	}()
	return func() { close(over); <-done }
}
