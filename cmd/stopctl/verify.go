package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stopd/stopd/bundle"
	"github.com/stopd/stopd/internal/sshsig"
)

// maxPolicy bounds a policy: hundreds of logs and witnesses.
const maxPolicy = 1 << 20

func setupVerify(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	policy := fs.String("policy", "", "a `file` with the keys of logs and witnesses, and their quorum (c2sp.org/tlog-policy), from elsewhere than the bundle")
	allowed := fs.String("allowed-signers", "", "a `file` that says who may sign requests: ssh-keygen(1), ALLOWED SIGNERS; the redemption that let the bundle out has to have a request by one of them")
	asJSON := fs.Bool("json", false, "print a JSON object for each bundle, one a line")
	return func(_ context.Context, std stdio, args []string) error {
		text, err := readPolicy(*policy)
		if err != nil {
			return err
		}
		var signers sshsig.Signers
		if *allowed != "" {
			if signers, err = readSigners(*allowed); err != nil {
				return err
			}
			signers = append(sshsig.Signers{}, signers...) // nobody is a list, too
		}
		var wrong, unknown []error
		for i, path := range args {
			v, err := verify(path, text, signers)
			if e := (*exitError)(nil); err != nil && !errors.As(err, &e) {
				unknown = append(unknown, fmt.Errorf("%s: %w", path, err)) // nothing was found out
				continue
			}
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", path, err))
			}
			print := printVerdict
			if *asJSON {
				print = printVerdictJSON
			}
			if err := print(std.out, i, path, v, err); err != nil {
				return err
			}
		}
		if len(wrong) > 0 {
			return &exitError{exitAltered, errors.Join(append(wrong, unknown...)...)}
		}
		return errors.Join(unknown...)
	}
}

// readPolicy reads a policy; nil where none is named.
func readPolicy(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readBounded(path, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return append([]byte{}, text...), nil // an empty one is a policy, too
}

// verify reads and verifies a bundle. The error of one that is not vouched for has a code; the verdict is nil where it is no
// bundle.
func verify(path string, policy []byte, signers sshsig.Signers) (*bundle.Verdict, error) {
	text, err := readBounded(path, bundle.MaxSize)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(text)
	if err != nil {
		return nil, &exitError{exitAltered, err}
	}
	v, err := b.Verify(policy, signers)
	if err != nil {
		return nil, err
	}
	if v.Result != bundle.Met {
		err = &exitError{exitAltered, errors.New(v.Short())}
	}
	return &v, err
}

func printVerdict(w io.Writer, i int, path string, v *bundle.Verdict, _ error) error {
	if v == nil {
		return nil // stderr has it
	}
	lead := "\n"
	if i == 0 {
		lead = ""
	}
	_, err := fmt.Fprintf(w, "%s%s\n%s\n%s", lead, path, strings.Repeat("=", len(path)), v.Text())
	return err
}

// A verified is what verify -json prints. The names are a contract.
type verified struct {
	Bundle    string             `json:"bundle"` // the file
	Result    string             `json:"result"` // "policy met", "policy not met", "self-consistent", "wrong"; "altered" where it is no bundle
	Why       string             `json:"why"`
	Token     string             `json:"token"`
	Log       string             `json:"log"`
	ExistedBy *time.Time         `json:"existed_by"` // the report, by the witnesses' clocks; null where nobody says
	Proven    []bundle.Statement `json:"proven"`
	Custody   []custody          `json:"custody"`
	NotProven []bundle.Statement `json:"not_proven"`
}

type custody struct {
	Record   uint64    `json:"record"`
	Time     time.Time `json:"time"` // by the host's clock
	Act      string    `json:"act"`  // "redemption", "hold" or "release"
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	Outcome  string    `json:"outcome"`
	SignedBy string    `json:"signed_by"` // the key of a signed request; empty without
}

func printVerdictJSON(w io.Writer, _ int, path string, v *bundle.Verdict, why error) error {
	out := verified{Bundle: path, Proven: []bundle.Statement{}, Custody: []custody{}, NotProven: []bundle.Statement{}}
	if v == nil {
		out.Result, out.Why = "altered", why.Error()
	} else {
		out.Result, out.Why, out.Token, out.Log = string(v.Result), v.Why, v.Bundle.Token.String(), v.Bundle.Log
		out.Proven, out.NotProven = v.Proven(), v.NotProven()
		if by := v.By("report"); !by.IsZero() {
			out.ExistedBy = &by
		}
		for _, c := range v.Bundle.Custody {
			out.Custody = append(out.Custody, custody{c.Number, c.Time, c.Act, c.By, c.Reason, c.Outcome, v.Signed[c.Number]})
		}
	}
	return json.NewEncoder(w).Encode(out)
}
