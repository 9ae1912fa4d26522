package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/bundle"
	"github.com/stopd/stopd/chain"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/daemon"
	"github.com/stopd/stopd/report"
)

const defaultConfig = "/etc/stopd/stopd.toml"

func setupRedeem(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	o := openingFlags(fs)
	format := fs.String("format", "json", "json, text, raw (the report's exact bytes), ecs or stix")
	return func(ctx context.Context, std stdio, args []string) error {
		show := map[string]func(io.Writer, evidence.Evidence) error{"json": showJSON, "text": showText, "raw": showRaw,
			"ecs": showAs(chain.ECS), "stix": showAs(chain.STIX)}[*format]
		if show == nil {
			return usageError("-format %q: none of json, text, raw, ecs, stix", *format)
		}
		ds, damage := o.open(ctx, std, args[0])
		if ds == nil {
			return coded(damage)
		}
		a, err := evidence.Assemble(ds)
		if err != nil {
			return coded(o.named(args[0], err))
		}
		return errors.Join(show(std.out, a.Evidence), coded(damage))
	}
}

// An opening is how the evidence of a token is opened: out of the store, or out of what was exported.
type opening struct {
	store, identity, around, by, reason *string
	request                             request
}

func openingFlags(fs *flag.FlagSet) *opening {
	return &opening{
		store:    fs.String("store", "", "the store `directory`, on the host; without it the argument is a file of stopctl export"),
		identity: fs.String("identity", "", "the `file` with the administrator's private key"),
		around:   fs.String("around", "", "the `time` of the report to within an hour (2026-03-04T12:00:00Z), for the beginning of a token"),
		by:       fs.String("by", "", "who asks for the redemption, with -store"),
		reason:   fs.String("reason", "", "why, with -store"),
		request:  requestFlags(fs),
	}
}

// open opens the records of a token, or of a file. They may be there beside an error that says that more may be missing.
func (o *opening) open(ctx context.Context, std stdio, arg string) ([]evidence.Disclosed, error) {
	if *o.identity == "" {
		return nil, usageError("-identity is needed")
	}
	if *o.store != "" && (*o.by == "" || *o.reason == "") {
		return nil, usageError("-by and -reason are needed: it is recorded who asks, and why")
	}
	if *o.store == "" && o.request.given() {
		return nil, usageError("-store is needed with -request: it was recorded with the export")
	}
	ids, err := identities(*o.identity)
	if err != nil {
		return nil, err
	}
	var sealed []byte
	var damage error
	if *o.store == "" {
		if _, err := stop.ParseToken(arg); err == nil {
			return nil, usageError("-store is needed to redeem a token; without it the argument is a file of stopctl export")
		}
		if sealed, err = os.ReadFile(arg); err != nil {
			return nil, fmt.Errorf("read sealed report: %w", err)
		}
		if len(sealed) == 0 {
			return nil, fmt.Errorf("read sealed report: %s is empty: the export failed", arg)
		}
	} else if sealed, damage = o.takeOut(ctx, std, arg, ids); sealed == nil {
		return nil, damage
	}
	ds, err := evidence.Disclose(sealed, ids...)
	if err != nil {
		return nil, o.named(arg, err)
	}
	return ds, damage
}

// named says in an error which file is meant.
func (o *opening) named(arg string, err error) error {
	if *o.store == "" {
		return fmt.Errorf("%s: %w", arg, err)
	}
	return err
}

// coded gives an error of the evidence its exit code.
func coded(err error) error {
	if errors.Is(err, evidence.ErrAltered) {
		return &exitError{exitAltered, err}
	}
	return err
}

func identities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer f.Close()
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("read identity %s: %w", path, err)
	}
	return ids, nil
}

// takeOut exports a token's evidence from the store, for who holds the key.
func (o *opening) takeOut(ctx context.Context, std stdio, token string, ids []age.Identity) ([]byte, error) {
	t, err := stop.ParseToken(token)
	if err != nil {
		if t, err = complete(*o.store, token, *o.around, ids); err != nil {
			return nil, err
		}
	}
	r := evidence.Redemption{Token: t, By: *o.by, Reason: *o.reason}
	if err := o.request.sign(&r); err != nil {
		return nil, err
	}
	c := evidence.Config{Recipients: recipientsOf(ids), LogKey: logKeyOf(*o.store), Logger: warnings(std)}
	if cfg, err := configOf(*o.store, ""); err == nil && len(cfg.Recipients) > 0 {
		if c.Recipients, err = cfg.AgeRecipients(); err != nil {
			return nil, err
		}
	}
	sealed, err := evidence.Export(ctx, *o.store, r, c)
	return sealed, explained(ctx, *o.store, t, err)
}

// explained says of a token that is not found whether it ever was, as far as the log tells.
func explained(ctx context.Context, store string, t stop.Token, err error) error {
	if !errors.Is(err, evidence.ErrNotFound) {
		return err
	}
	if why := evidence.Missing(ctx, store, t); errors.Is(why, evidence.ErrNotFound) || errors.Is(why, evidence.ErrAltered) {
		return why
	}
	return err
}

// logKeyOf is the key that signs a store's log: none where it cannot be read, and then the next daemon signs.
func logKeyOf(store string) *translog.Key {
	key, err := daemon.LogKey(store)
	if err != nil {
		return nil
	}
	return &key
}

// warnings is the log of a store that is opened for one command: its errors are the command's own.
func warnings(std stdio) *slog.Logger {
	return slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// complete finds the one token that begins with a prefix, among those of about a time. There is no index of
// prefixes that somebody without the key could search: all reports of that time are opened.
func complete(store, prefix, around string, ids []age.Identity) (stop.Token, error) {
	if len(prefix) < evidence.MinPrefix || !strings.HasPrefix(prefix, "s") {
		return stop.Token{}, usageError("%q is not a token, nor ten or more of the first characters of one", prefix)
	}
	if around == "" {
		return stop.Token{}, usageError("-around is needed with the beginning of a token: when was it given, to within an hour?")
	}
	at, err := time.Parse(time.RFC3339, around)
	if err != nil {
		return stop.Token{}, usageError("-around: %q is not a time such as 2026-03-04T12:00:00Z", around)
	}
	ts, err := evidence.Resolve(store, prefix, at, ids...)
	switch {
	case err != nil:
		return stop.Token{}, err
	case len(ts) > 1:
		return stop.Token{}, fmt.Errorf("%d tokens begin with %q", len(ts), prefix)
	}
	return ts[0], nil
}

// recipientsOf returns the public keys of identities, to which the record of a redemption is sealed where
// no daemon runs that would do it, and no configuration goes with the store.
func recipientsOf(ids []age.Identity) []age.Recipient {
	var rs []age.Recipient
	for _, id := range ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			rs = append(rs, id.Recipient())
		case *age.HybridIdentity:
			rs = append(rs, id.Recipient())
		}
	}
	return rs
}

func showRaw(w io.Writer, e evidence.Evidence) error {
	_, err := w.Write(e.Report)
	return err
}

func showJSON(w io.Writer, e evidence.Evidence) error {
	ts, unreadable, further := report.FirstTraceback(e.Tracebacks)
	_, err := w.Write(report.EncodeRedeemed(e.Token.String(), e.Report, ts))
	return errors.Join(err, leftOut(unreadable, further))
}

// showAs shows a report in a form of chains: it is one of one host.
func showAs(form func(*chain.Chain) (string, error)) func(io.Writer, evidence.Evidence) error {
	return func(w io.Writer, e evidence.Evidence) error {
		r, left, err := decoded(e)
		if err != nil {
			return err
		}
		text, err := form(chain.Build(chain.Of(r)))
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, text)
		return errors.Join(err, left)
	}
}

func showText(w io.Writer, e evidence.Evidence) error {
	r, left, err := decoded(e)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, report.Text(r.Report)+report.TracebackText(r.Traceback))
	return errors.Join(err, left)
}

// decoded is the report with its trace-back, and what was left out of that.
func decoded(e evidence.Evidence) (_ report.Redeemed, left, err error) {
	r, unreadable, further, err := (&bundle.Bundle{Evidence: e}).Redeemed()
	return r, leftOut(unreadable, further), err
}

// leftOut is the error of trace-back records that do not count.
func leftOut(unreadable, further int) error {
	if unreadable+further == 0 {
		return nil
	}
	return &exitError{exitAltered, fmt.Errorf("the first trace-back record that can be read counts: a host writes one, and there are %d that cannot be read and %d later ones (stopctl bundle has all)", unreadable, further)}
}

// listTime is as in reports.
const listTime = "2006-01-02T15:04:05.000000000Z"

// A listed is a record as list -json prints it. The names are those of the table, and a contract.
type listed struct {
	Time     string `json:"time"`
	Type     string `json:"type"`
	Size     int    `json:"size"` // octets, as stored
	Redeemed bool   `json:"redeemed"`
}

func setupList(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	store := fs.String("store", "", "the store `directory` (default that of the configuration)")
	config := fs.String("config", defaultConfig, "the daemon's configuration `file`")
	asJSON := fs.Bool("json", false, "print each record as a JSON object, one a line")
	return func(_ context.Context, std stdio, _ []string) error {
		dir := *store
		if dir == "" {
			cfg, err := daemon.Load(*config)
			if err != nil {
				return err
			}
			dir = cfg.Store
		}
		if *asJSON {
			lines := json.NewEncoder(std.out)
			return coded(evidence.List(dir, func(e evidence.Entry) error {
				return lines.Encode(listed{e.Time.UTC().Format(listTime), e.Type, e.Size, e.Redeemed})
			}))
		}
		if isTerminal(std.out) {
			fmt.Fprintf(std.out, "%-30s %-10s %8s %s\n", "TIME", "TYPE", "SIZE", "REDEEMED")
		}
		return coded(evidence.List(dir, func(e evidence.Entry) error {
			redeemed := "no"
			if e.Redeemed {
				redeemed = "yes"
			}
			_, err := fmt.Fprintf(std.out, "%-30s %-10s %8d %s\n", e.Time.UTC().Format(listTime), e.Type, e.Size, redeemed)
			return err
		}))
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func setupToken(*flag.FlagSet) func(context.Context, stdio, []string) error {
	return func(_ context.Context, std stdio, args []string) error {
		b, err := os.ReadFile(args[0])
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		_, err = fmt.Fprintln(std.out, stop.TokenOf(b))
		return err
	}
}
