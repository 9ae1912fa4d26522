package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/bundle"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/report"
)

// chainForms are the forms of a chain.
var chainForms = map[string]func(*chain.Chain) (string, error){
	"text": plain(chain.Text),
	"json": chain.JSON,
	"dot":  plain(chain.DOT),
	"svg":  plain(chain.SVG),
	"csv":  chain.CSV,
	"ecs":  chain.ECS,
	"stix": chain.STIX,
}

func plain(form func(*chain.Chain) string) func(*chain.Chain) (string, error) {
	return func(c *chain.Chain) (string, error) { return form(c), nil }
}

func setupChain(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	names := strings.Join(slices.Sorted(maps.Keys(chainForms)), ", ")
	format := fs.String("format", "text", names)
	policy := fs.String("policy", "", "a `file` with the keys that bundles are held against, as for verify")
	return func(_ context.Context, std stdio, args []string) error {
		form := chainForms[*format]
		if form == nil {
			return usageError("-format %q: none of %s", *format, names)
		}
		keys, err := readPolicy(*policy)
		if err != nil {
			return err
		}
		var ss []chain.Source
		for _, f := range args {
			s, err := readSource(f, keys)
			if err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			ss = append(ss, s)
		}
		text, err := form(chain.Build(ss))
		if err != nil {
			return err
		}
		_, err = io.WriteString(std.out, text)
		return err
	}
}

// readSource reads what redeem printed, or a bundle, and checks that the report is the one that the token names. A bundle is
// held against the policy, if there is one.
func readSource(path string, policy []byte) (chain.Source, error) {
	b, err := readBounded(path, bundle.MaxSize)
	if err != nil {
		return chain.Source{}, err
	}
	if bundle.Is(b) {
		return readBundle(b, policy)
	}
	r, bytes, err := report.DecodeRedeemed(b)
	if err != nil {
		return chain.Source{}, err
	}
	if got := stop.TokenOf(bytes).String(); got != r.Token {
		return chain.Source{}, &exitError{exitAltered, fmt.Errorf("the report is not the one of its token: its hash is %s", got)}
	}
	return chain.Source{Redeemed: r, Standing: chain.Plain}, nil
}

func readBundle(b, policy []byte) (chain.Source, error) {
	o, err := bundle.Open(b)
	if err != nil {
		return chain.Source{}, coded(err)
	}
	v, err := o.Verify(policy, nil)
	if err != nil {
		return chain.Source{}, err
	}
	standing, known := standingOf[v.Result]
	if !known {
		return chain.Source{}, &exitError{exitAltered, errors.New(v.Short())}
	}
	r, unreadable, further, err := o.Redeemed()
	if err != nil {
		return chain.Source{}, err
	}
	return chain.Source{Redeemed: r, Standing: standing, Log: o.Log, Unreadable: unreadable, Further: further}, nil
}

// standingOf is what verified bundles count for. One with a signature that is not good counts for nothing.
var standingOf = map[bundle.Result]chain.Standing{
	bundle.Met:        chain.Vouched,
	bundle.Consistent: chain.Consistent,
	bundle.Unmet:      chain.Unvouched,
}
