package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/report"
)

func setupChain(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	format := fs.String("format", "text", "text")
	return func(_ context.Context, std stdio, args []string) error {
		if *format != "text" {
			return usageError("-format %q: this version has text only", *format)
		}
		var rs []report.Redeemed
		for _, f := range args {
			r, err := readRedeemed(f)
			if err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
			rs = append(rs, r)
		}
		_, err := io.WriteString(std.out, chain.Text(chain.Build(rs)))
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
