package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/stopd/stopd/bundle"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/internal/sshsig"
)

func setupBundle(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	o := openingFlags(fs)
	return func(ctx context.Context, std stdio, args []string) error {
		if isTerminal(std.out) {
			return usageError("a bundle is no text: send it to a file")
		}
		ds, damage := o.open(ctx, std, args[0])
		if ds == nil {
			return coded(damage)
		}
		b, err := bundle.Make(ds, "stopctl "+daemon.Version, time.Now())
		if err != nil {
			return coded(o.named(args[0], err))
		}
		if _, err := std.out.Write(b); err != nil {
			return err
		}
		if ds[0].Proof == nil {
			fmt.Fprintln(std.err, "warning: nothing proves when the report was there: the host could not use its log")
		}
		return coded(damage)
	}
}

// A request is one for a redemption, that somebody signed with ssh-keygen.
type request struct{ file, signature, signers *string }

func requestFlags(fs *flag.FlagSet) request {
	return request{
		file:      fs.String("request", "", "a text `file` that asks for this redemption and names the token, whole, signed by: ssh-keygen -Y sign -n "+bundle.RequestNamespace),
		signature: fs.String("signature", "", "the `file` of its signature (default that of -request with .sig)"),
		signers:   fs.String("allowed-signers", "", "a `file` that says with which keys -by may sign: ssh-keygen(1), ALLOWED SIGNERS"),
	}
}

func (q request) given() bool { return *q.file != "" || *q.signature != "" || *q.signers != "" }

// sign adds the request to a redemption, if it is signed by who asks.
func (q request) sign(r *evidence.Redemption) error {
	if !q.given() {
		return nil
	}
	if *q.file == "" || *q.signers == "" {
		return usageError("-request and -allowed-signers are needed together")
	}
	signature := *q.signature
	if signature == "" {
		signature = *q.file + ".sig"
	}
	text, err := readBounded(*q.file, evidence.MaxRequest)
	if err == nil {
		r.Request = string(text)
		text, err = readBounded(signature, evidence.MaxSignature)
	}
	if err != nil {
		return fmt.Errorf("read signed request: %w", err)
	}
	r.Signature = string(text)
	signers, err := readSigners(*q.signers)
	if err != nil {
		return err
	}
	if _, err := bundle.CheckRequest(*r, signers, time.Now()); err != nil {
		return &exitError{exitAltered, err}
	}
	return nil
}

func readSigners(path string) (sshsig.Signers, error) {
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("read allowed signers: %w", err)
	}
	signers, err := sshsig.ParseSigners(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signers, nil
}

// readBounded reads a file of at most so many octets.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is longer than %d octets", path, most)
	}
	return b, err
}
