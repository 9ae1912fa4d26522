package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/flows"
	"github.com/stopd/stopd/internal/tokens"
	"github.com/stopd/stopd/internal/watch"
)

func setupTokens(fs *flag.FlagSet) func(context.Context, stdio, []string) error {
	config := fs.String("config", watchConfig, "the `file` with the rules of stopctl watch, which says where the tokens are")
	store := fs.String("store", "", "where the tokens are: a `file`, or postgres://...")
	at := fs.String("at", "", "when the connection was seen, a `time` such as 2026-11-03T14:05:00Z")
	within := fs.Duration("within", time.Hour, "how far from -at it may have been seen")
	limit := fs.Int("limit", 100, "find at most this `number`")
	asJSON := fs.Bool("json", false, "print each as a JSON object, one a line")
	return func(ctx context.Context, std stdio, args []string) error {
		q := tokens.Query{Limit: *limit}
		if *limit < 1 {
			return usageError("-limit is less than 1")
		}
		if len(args) == 1 {
			if err := sought(&q, args[0]); err != nil {
				return &exitError{exitUsage, err}
			}
		}
		if *at != "" {
			t, err := time.Parse(time.RFC3339, *at)
			if err != nil {
				return usageError("-at: %q is not a time such as 2026-11-03T14:05:00Z", *at)
			}
			q.From, q.To = t.Add(-*within), t.Add(*within)
		}
		where, seed := *store, uint16(0)
		if where == "" {
			cfg, err := watch.Load(*config)
			if err != nil {
				return err
			}
			where, seed = cfg.Tokens, cfg.CommunitySeed
		}
		s, err := tokens.OpenExisting(ctx, where)
		if err != nil {
			return err
		}
		defer s.Close()
		found, more, err := s.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, r := range found {
			if err := printRecord(std.out, r, seed, *asJSON); err != nil {
				return err
			}
		}
		switch {
		case len(found) == 0:
			return errors.New("nothing was asked about that is like this" + hint(q))
		case more:
			fmt.Fprintf(std.err, "stopctl tokens: there are more; -limit shows them\n")
		}
		return nil
	}
}

// hint says how else to look where nothing was found.
func hint(q tokens.Query) string {
	switch {
	case q.Community != "":
		return ": a Community ID depends on its seed, and the ends of the connection do not"
	case !q.From.IsZero():
		return ": a greater -within looks farther from -at, and clocks differ"
	case q.Flow[0].IsValid() || q.End.Port() != 0:
		return ": an address alone finds all that was asked about it"
	}
	return ""
}

// sought says what is looked for: a Community ID, an address, one end of a connection, or a connection in any form.
func sought(q *tokens.Query, what string) error {
	what = strings.TrimSpace(what)
	if flows.IsCommunityID(what) {
		q.Community = what
		return nil
	}
	if a, err := netip.ParseAddr(what); err == nil {
		q.End = netip.AddrPortFrom(a.Unmap().WithZone(""), 0)
		return nil
	}
	if e, err := netip.ParseAddrPort(what); err == nil {
		q.End = netip.AddrPortFrom(e.Addr().Unmap().WithZone(""), e.Port())
		return nil
	}
	f, err := pasted(what)
	if err != nil {
		return err
	}
	q.Flow = [2]netip.AddrPort{f.Source, f.Destination}
	return nil
}

// A keptToken is a record as a JSON object. The names of its keys are a contract.
type keptToken struct {
	Seen        string `json:"seen"`
	Asked       string `json:"asked"`
	CommunityID string `json:"community_id"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// The ends beyond a gateway, empty where there is none.
	FarSource      string `json:"far_source"`
	FarDestination string `json:"far_destination"`
	Host           string `json:"host"`
	Type           string `json:"type"`
	SID            string `json:"sid"`
	Token          string `json:"token"`
	Error          string `json:"error"`
	Input          string `json:"input"`
	Alert          string `json:"alert"`
}

const microTime = "2006-01-02T15:04:05.000000Z"

// lateAsked is from when on it is told that the question came later than the connection.
const lateAsked = 10 * time.Second

// printRecord prints a line: when the connection was seen, its ends, who was asked, what came of it, and the alert.
func printRecord(w io.Writer, r tokens.Record, seed uint16, asJSON bool) error {
	seen := r.Seen.UTC().Format(microTime)
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(keptToken{seen, r.Asked.UTC().Format(microTime), flows.CommunityID(flows.TCP, r.Source, r.Destination, seed), r.Source.String(), r.Destination.String(),
			far(r.FarSource), far(r.FarDestination), r.Host.String(), r.Type.String(), fmt.Sprint(r.SID), r.Token, r.Error, r.Input, r.Alert})
	}
	between := ""
	if r.FarSource.IsValid() {
		between = fmt.Sprintf(" (beyond: %s -> %s)", r.FarSource, r.FarDestination)
	}
	answer := r.Token
	if answer == "" {
		answer = "- (" + stop.Printable(r.Error) + ")"
	}
	if r.Asked.Sub(r.Seen).Abs() > lateAsked {
		seen += " (asked: " + r.Asked.UTC().Format(microTime) + ")"
	}
	line := fmt.Sprintf("%s %s -> %s%s %s %s %s", seen, r.Source, r.Destination, between, r.Host, r.Type, answer)
	if r.Alert != "" {
		line += " " + stop.Printable(r.Alert)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

func far(end netip.AddrPort) string {
	if !end.IsValid() {
		return ""
	}
	return end.String()
}
