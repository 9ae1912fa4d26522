package evidence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
)

// List yields every record of the store in dir, in order. It takes no lock and needs no key; a
// record that is being written at the end is left out. Damage is stepped over: the error, once all
// is yielded, wraps [ErrAltered] and names the file and the first offset. An error of yield ends it.
func List(dir string, yield func(Entry) error) error {
	r, err := newReading(dir)
	if err != nil {
		return fmt.Errorf("list store: %w", err)
	}
	redeemed := map[locator]bool{}
	err = r.walk(context.Background(), nil, func(_ uint64, _ int64, rec record) error {
		if rec.kind == typeRedemption {
			redeemed[rec.locator] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list store: %w", err)
	}
	damage := r.err()
	var stopped error
	again := &reading{dir: r.dir, numbers: r.numbers}
	err = again.walk(context.Background(), nil, func(n uint64, at int64, rec record) error {
		e := entryOf(at, rec, redeemed)
		e.Segment = n
		stopped = yield(e)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	if err == nil {
		err = damage
	}
	if err != nil {
		return fmt.Errorf("list store: %w", err)
	}
	return nil
}

func entryOf(at int64, r record, redeemed map[locator]bool) Entry {
	e := Entry{
		Time:     time.Unix(0, r.time).UTC(),
		Type:     r.kind.String(),
		Number:   r.number,
		Offset:   at,
		Size:     len(r.payload),
		Redeemed: r.kind == typeReport && redeemed[r.locator],
	}
	if r.kind == typeStart {
		var p startPayload
		// Its checksum holds, so what is not JSON here is of a later program, and no cut of ours.
		if json.Unmarshal(r.payload, &p) == nil {
			e.Cut = p.Cut
		}
	}
	return e
}

const aroundWindow = time.Hour

// MinPrefix is how many characters of a token are enough to look it up by: IRC shows no more.
const MinPrefix = 10

// Resolve gives the tokens of the reports in dir whose text form begins with prefix, in the order
// they were kept, by opening every report; where around is not zero, only those kept within an
// hour of it. A prefix has at least [MinPrefix] characters. It takes no lock and records nothing.
//
// Where no token fits the error is [ErrNotFound], unless a report could not be tried: then it is
// [ErrAltered] (the store is damaged) or [ErrWrongKey] (no identity opens a report).
func Resolve(dir, prefix string, around time.Time, ids ...age.Identity) ([]stop.Token, error) {
	tokens, err := resolvePrefix(dir, prefix, around, ids)
	if err != nil {
		return nil, fmt.Errorf("resolve token prefix: %w", err)
	}
	return tokens, nil
}

func resolvePrefix(dir, prefix string, around time.Time, ids []age.Identity) ([]stop.Token, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	r, err := newReading(dir)
	if err != nil {
		return nil, err
	}
	near := func(ns int64) bool { return around.IsZero() || time.Unix(0, ns).Sub(around).Abs() <= aroundWindow }
	var want func(s segment, next int64) bool
	if !around.IsZero() {
		want = func(s segment, next int64) bool {
			return s.made <= around.Add(aroundWindow).UnixNano() && next >= around.Add(-aroundWindow).UnixNano()
		}
	}
	var tokens []stop.Token
	seen := map[stop.Token]bool{}
	var untried error
	var open *keys
	of := uint64(0)
	err = r.walk(context.Background(), want, func(n uint64, _ int64, rec record) error {
		if n != of {
			of, open = n, newKeys(ids) // a segment's records are sealed with keys in it
		}
		if rec.kind == typeBatch {
			rec.payload = bytes.Clone(rec.payload)
			open.add(rec)
		}
		if rec.kind != typeReport || !near(rec.time) {
			return nil
		}
		report, err := open.open(rec)
		if errors.Is(err, ErrWrongKey) || errors.Is(err, ErrAltered) {
			// Reports may be sealed to recipients of different times: others may still open.
			untried = err
			return nil
		}
		if err != nil {
			return err
		}
		if t := stop.TokenOf(report); strings.HasPrefix(t.String(), prefix) && !seen[t] {
			seen[t] = true
			tokens = append(tokens, t)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(tokens) > 0:
		return tokens, nil
	case r.err() != nil:
		return nil, r.err()
	case untried != nil:
		return nil, untried
	}
	return nil, fmt.Errorf("%w: none begins with %q", ErrNotFound, prefix)
}

func checkPrefix(prefix string) error {
	full := len(stop.Token{}.String())
	if len(prefix) < MinPrefix || len(prefix) > full {
		return fmt.Errorf("check prefix %q: %d characters, not %d to %d", prefix, len(prefix), MinPrefix, full)
	}
	// The last digit of a token holds fewer bits than the others, so a prefix is checked by its
	// alphabet and not by filling it up to a token.
	if prefix[0] != 's' || strings.Trim(prefix[1:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return fmt.Errorf("check prefix %q: no beginning of a token", prefix)
	}
	return nil
}
