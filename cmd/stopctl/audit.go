package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/daemon"
)

// askTimeout is how long an audit waits for the witnesses.
const askTimeout = 15 * time.Second

func setupAudit(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	store := fs.String("store", "", "the store `directory` (default that of the configuration)")
	config := fs.String("config", "", "the daemon's configuration `file`, for the witnesses"+whichConfig)
	policy := fs.String("policy", "", "a `file` with the keys of the log and its witnesses, and their quorum (c2sp.org/tlog-policy), instead of the host's own")
	forwarded := fs.String("forwarded", "", "a `file` of the log server that was told of the log (syslog.to), to hold the log against")
	return func(ctx context.Context, std stdio, _ []string) error {
		dir, p, err := auditPolicy(*store, *config, *policy)
		if err != nil {
			return err
		}
		log, err := openForwarded(*forwarded)
		if err != nil {
			return err
		}
		defer log.Close()
		a, err := evidence.Audit(ctx, dir, p)
		if err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		said, silent := translog.Ask(asking, filepath.Join(dir, "log"), p)
		for _, f := range said {
			f.Path = "log/" + f.Path
			a.Findings = append(a.Findings, f)
		}
		if *forwarded != "" {
			if err := auditForwarded(ctx, log, dir, a, std.err); err != nil {
				return err
			}
		}
		for _, f := range a.Findings {
			fmt.Fprintln(std.out, f)
		}
		if a.More > 0 {
			fmt.Fprintf(std.out, "and %d more\n", a.More)
		}
		summary(std.err, a, p, silent)
		if n := len(a.Findings) + a.More; n > 0 {
			return &exitError{exitAltered, errors.New(count(n, "finding"))}
		}
		return nil
	}
}

// auditPolicy finds what a store is held against: a policy that was given, or what the host has itself.
func auditPolicy(store, config, policy string) (dir string, p translog.Policy, err error) {
	if policy != "" {
		if store == "" {
			return "", p, usageError("-store is needed with -policy")
		}
		b, err := os.ReadFile(policy)
		if err != nil {
			return "", p, fmt.Errorf("read policy: %w", err)
		}
		if p, err = translog.ParsePolicy(b); err != nil {
			return "", p, fmt.Errorf("%s: %w", policy, err)
		}
		return store, p, nil
	}
	cfg, err := configOf(store, config)
	if err != nil {
		return "", p, err
	}
	if store == "" {
		store = cfg.Store
	}
	key, err := daemon.LogKey(store)
	if err != nil {
		return "", p, fmt.Errorf("%w; of a copy of a store, give -policy", err)
	}
	p, err = cfg.LogPolicy(key)
	return store, p, err
}

// whichConfig is the help of -config where [configOf] reads it.
const whichConfig = " (default stopd.toml beside the store, or " + defaultConfig + ")"

// configOf reads the configuration that goes with a store: one that is named, the one beside the store, or the
// host's, if it is of that store. Without any it has the defaults: no recipients, no witnesses.
func configOf(store, config string) (daemon.Config, error) {
	if config != "" || store == "" {
		if config == "" {
			config = defaultConfig
		}
		return daemon.Load(config)
	}
	beside := filepath.Join(filepath.Dir(filepath.Clean(store)), filepath.Base(defaultConfig))
	for _, path := range []string{beside, defaultConfig} {
		cfg, err := daemon.Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return daemon.Config{}, err
		}
		if same(cfg.Store, store) {
			return cfg, nil
		}
	}
	return daemon.Defaults(), nil
}

// same reports whether two paths are of one directory.
func same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// count says how many there are of something.
func count[N int | int64 | uint64](n N, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// summary says what was looked at, and what it is worth.
func summary(w io.Writer, a *evidence.Audited, p translog.Policy, silent []*translog.WitnessError) {
	writing := ""
	if a.Writing {
		writing = ", being written"
	}
	fmt.Fprintf(w, "store: %s in %s, %d expired%s\n", count(a.Records, "record"), count(a.Segments, "segment"), a.Expired, writing)
	head := a.Log.Head
	if head.Origin == "" {
		fmt.Fprintln(w, "log: no checkpoint that is of use")
		return
	}
	fmt.Fprintf(w, "log: %s, %d leaves, root %s\n", head.Origin, head.N, head.Hash)
	if n := int64(a.Next) - head.N; n > 0 && a.Writing {
		fmt.Fprintf(w, "not under a checkpoint yet: %s\n", count(n, "record"))
	}
	if !p.Witnessed() {
		fmt.Fprintln(w, "nobody outside vouches for it: who has the log's key can have written all of it anew; only reports that others hold speak against that")
		return
	}
	if a.Log.Cosigned >= 0 {
		fmt.Fprintf(w, "vouched for by the witnesses: the first %d leaves\n", a.Log.Cosigned)
	}
	for _, c := range a.Log.Cosignatures {
		fmt.Fprintf(w, "cosigned: %d leaves, by %s, %s\n", c.Size, c.Witness, c.Time.Format(time.RFC3339))
	}
	var names []string
	asked := 0
	for _, x := range p.Witnesses {
		if x.URL != "" {
			asked++
		}
	}
	for _, s := range silent {
		names = append(names, s.Error())
	}
	switch {
	case asked == 0:
		fmt.Fprintln(w, "no witness was asked: that it is the newest state is not known")
	case len(silent) == asked:
		fmt.Fprintf(w, "no witness answered: that it is the newest state is not known (%s)\n", strings.Join(names, "; "))
	case len(silent) > 0:
		fmt.Fprintf(w, "did not answer: %s\n", strings.Join(names, "; "))
	}
}
