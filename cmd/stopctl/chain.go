package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/stopd/stopd"
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
	return func(_ context.Context, std stdio, args []string) error {
		form := chainForms[*format]
		if form == nil {
			return usageError("-format %q: none of %s", *format, names)
		}
		var rs []report.Redeemed
		for _, f := range args {
			r, err := readRedeemed(f)
			if err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			rs = append(rs, r)
		}
		text, err := form(chain.Build(rs))
		if err != nil {
			return err
		}
		_, err = io.WriteString(std.out, text)
		return err
	}
}

// readRedeemed reads what redeem printed, and checks that the report is the one that the token names.
func readRedeemed(path string) (report.Redeemed, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return report.Redeemed{}, err
	}
	if r, is, err := readBundle(b); is {
		return r, err
	}
	r, bytes, err := report.DecodeRedeemed(b)
	if err != nil {
		return report.Redeemed{}, err
	}
	if got := stop.TokenOf(bytes).String(); got != r.Token {
		return report.Redeemed{}, &exitError{exitAltered, fmt.Errorf("the report is not the one of its token: its hash is %s", got)}
	}
	return r, nil
}
