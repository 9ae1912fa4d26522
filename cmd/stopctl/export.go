package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
)

func setupExport(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	on := actFlags(fs, "who asks for the redemption")
	request := requestFlags(fs)
	return func(ctx context.Context, std stdio, args []string) error {
		a, err := on(std, args[0])
		if err != nil {
			return err
		}
		if err := request.sign(&a.who); err != nil {
			return err
		}
		sealed, err := evidence.Export(ctx, a.store, a.who, a.config)
		if sealed != nil {
			if _, werr := std.out.Write(sealed); werr != nil {
				return werr
			}
		}
		return a.coded(explained(ctx, a.store, a.who.Token, err))
	}
}

func setupHold(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	release := fs.Bool("release", false, "end the hold")
	on := actFlags(fs, "who asks for the hold")
	return func(ctx context.Context, std stdio, args []string) error {
		a, err := on(std, args[0])
		if err != nil {
			return err
		}
		return a.coded(evidence.Hold(ctx, a.store, *release, a.who, a.config))
	}
}

// An act is something done to a store on the host, without the private key.
type act struct {
	store     string
	who       evidence.Redemption
	config    evidence.Config
	configErr error // why its recipients are not known
}

// actFlags declares the flags of an act, and returns what reads them.
func actFlags(fs *flag.FlagSet, whoAsks string) func(std stdio, token string) (act, error) {
	store := fs.String("store", "", "the store `directory` (default that of the configuration)")
	config := fs.String("config", "", "the daemon's configuration `file`"+whichConfig)
	by := fs.String("by", "", whoAsks)
	reason := fs.String("reason", "", "why")
	return func(std stdio, token string) (act, error) {
		if *by == "" || *reason == "" {
			return act{}, usageError("-by and -reason are needed: it is recorded who asks, and why")
		}
		t, err := stop.ParseToken(token)
		if err != nil {
			return act{}, &exitError{exitUsage, err}
		}
		a := act{store: *store, who: evidence.Redemption{Token: t, By: *by, Reason: *reason}, config: evidence.Config{Logger: warnings(std)}}
		cfg, err := configOf(a.store, *config)
		switch {
		case err != nil:
		case len(cfg.Recipients) == 0:
			err = errors.New("no configuration goes with the store: -config is needed where no stopd runs")
		default:
			a.config.Recipients, err = cfg.AgeRecipients()
		}
		a.configErr = err
		if a.store == "" {
			if err != nil {
				return act{}, err
			}
			a.store = cfg.Store
		}
		a.config.LogKey = logKeyOf(a.store)
		return a, nil
	}
}

// coded gives an act's error its exit code.
func (a act) coded(err error) error {
	known := errors.Is(err, evidence.ErrNotFound) || errors.Is(err, evidence.ErrAltered) || errors.Is(err, evidence.ErrAsBefore)
	if err != nil && a.configErr != nil && !known {
		// Without a daemon it is recorded here, sealed to the recipients that the configuration names.
		err = fmt.Errorf("%w (%w)", err, a.configErr)
	}
	return coded(err)
}
