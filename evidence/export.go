package evidence

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
)

// redemptionPayload is the plaintext of a redemption record, which carries the report's locator.
type redemptionPayload struct {
	By      string `json:"by"`
	Reason  string `json:"reason"`
	Outcome string `json:"outcome"` // "exported", "not found", "altered" or "failed"
}

// Export records durably that r.By asked for the evidence of r.Token, whether it is found or not,
// and then gives its records, still sealed, as a segment that [Unseal] opens. A token without a
// report is [ErrNotFound].
//
// Where damage may hide trace-backs of a token whose report is sound, Export gives the sound
// records together with an error that wraps [ErrAltered]. With any other error there are none.
func (s *Store) Export(ctx context.Context, r Redemption) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if err := s.failure(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	export, found := s.collect(r.Token)
	if err := s.recordRedemption(ctx, r, found); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	if found != nil {
		return export, fmt.Errorf("export evidence: %w", found)
	}
	return export, nil
}

func (s *Store) recordRedemption(ctx context.Context, r Redemption, found error) error {
	outcome := "exported"
	switch {
	case errors.Is(found, ErrNotFound):
		outcome = "not found"
	case errors.Is(found, ErrAltered):
		outcome = "altered"
	case found != nil:
		outcome = "failed"
	}
	plaintext, err := json.Marshal(redemptionPayload{By: r.By, Reason: r.Reason, Outcome: outcome})
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	payload, err := seal(s.recipients, plaintext)
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	err = s.append(ctx, record{kind: typeRedemption, locator: locate(reportLabel, r.Token), payload: payload})
	if err != nil {
		return fmt.Errorf("record redemption: %w", err)
	}
	s.logger.Info("evidence asked for", "by", r.By, "reason", r.Reason, "outcome", outcome)
	return nil
}

// collect gives the records of t as a segment, with the errors of [Store.Export].
func (s *Store) collect(t stop.Token) ([]byte, error) {
	report, traceback := locate(reportLabel, t), locate(tracebackLabel, t)
	s.mu.RLock()
	reports, tracebacks := slices.Clone(s.index[report]), slices.Clone(s.index[traceback])
	s.mu.RUnlock()
	damage := s.damage
	if len(reports) == 0 {
		if damage != nil {
			return nil, damage
		}
		return nil, ErrNotFound
	}
	export := appendSegmentHeader(nil)
	sound := 0
	for i, off := range append(reports, tracebacks...) {
		r, err := s.at(off)
		want := report
		if i >= len(reports) {
			want = traceback
		}
		if err == nil && r.locator != want {
			err = fmt.Errorf("read %q at offset %d: %w", s.path, off, ErrAltered)
		}
		if errors.Is(err, ErrAltered) {
			if damage == nil {
				damage = err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if i < len(reports) {
			sound++
		}
		export = appendRecord(export, r)
	}
	if sound == 0 {
		return nil, damage
	}
	return export, damage
}

// at reads the record at off anew: the index remembers where it is, not that it is still whole.
func (s *Store) at(off int64) (record, error) {
	b := make([]byte, recordHeader)
	_, err := s.file.ReadAt(b, off)
	if err == nil {
		var n int
		if n, err = payloadLength(b); err == nil {
			b = make([]byte, recordHeader+n)
			_, err = s.file.ReadAt(b, off)
		}
	}
	var r record
	if err == nil {
		r, err = decodeRecord(b)
	}
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return record{}, err // the disk's failure says nothing of the evidence
	}
	if err != nil {
		return record{}, fmt.Errorf("read %q at offset %d: %w: %w", s.path, off, ErrAltered, err)
	}
	return r, nil
}

// Export exports from the store in dir as [Store.Export] does: through the stopd that has it open,
// and where none runs, by opening it. Only then c is used. It makes no store.
func Export(ctx context.Context, dir string, r Redemption, c Config) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	conn, err := dialControl(ctx, dir)
	if err == nil {
		defer conn.Close()
		return askExport(ctx, conn, r)
	}
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	s, err := openStore(ctx, dir, c, false)
	if err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	export, err := s.Export(ctx, r)
	if closing := s.Close(); closing != nil && err == nil {
		return nil, fmt.Errorf("export evidence: %w", closing)
	}
	return export, err
}

// Unseal opens an export. That the token is the hash of the report's bytes, and that every record
// is of that token, is checked: what does not hold is [ErrAltered]. Where no identity opens a
// record the error is [ErrWrongKey]; an export of another version is [ErrVersion].
func Unseal(export []byte, ids ...age.Identity) (Evidence, error) {
	e, err := unseal(export, ids)
	if err != nil {
		return Evidence{}, fmt.Errorf("unseal export: %w", err)
	}
	return e, nil
}

func unseal(export []byte, ids []age.Identity) (Evidence, error) {
	if err := checkSegmentHeader(export); err != nil {
		return Evidence{}, err
	}
	var reports, tracebacks []record
	for b := export[segmentHeader:]; len(b) > 0; {
		r, err := decodeRecord(b)
		if err != nil {
			return Evidence{}, fmt.Errorf("%w: %w", ErrAltered, err)
		}
		switch r.kind {
		case typeReport:
			reports = append(reports, r)
		case typeTraceback:
			tracebacks = append(tracebacks, r)
		default:
			return Evidence{}, fmt.Errorf("%w: a record of type %s", ErrAltered, r.kind)
		}
		b = b[r.size():]
	}
	if len(reports) == 0 {
		return Evidence{}, fmt.Errorf("%w: no report", ErrAltered)
	}
	var e Evidence
	for i, r := range reports {
		report, err := open(r.payload, ids)
		if err != nil {
			return Evidence{}, err
		}
		t := stop.TokenOf(report)
		if r.locator != locate(reportLabel, t) || i > 0 && t != e.Token {
			return Evidence{}, fmt.Errorf("%w: the report is not what its token names", ErrAltered)
		}
		if i == 0 {
			e = Evidence{Token: t, Report: report, Kept: time.Unix(0, r.time).UTC()}
		}
	}
	slices.SortStableFunc(tracebacks, func(a, b record) int { return cmp.Compare(a.time, b.time) })
	for _, r := range tracebacks {
		b, err := open(r.payload, ids)
		if err != nil {
			return Evidence{}, err
		}
		t := e.Token
		if len(b) < len(t) || stop.Token(b[:len(t)]) != t || r.locator != locate(tracebackLabel, t) {
			return Evidence{}, fmt.Errorf("%w: a trace-back is of another token", ErrAltered)
		}
		e.Tracebacks = append(e.Tracebacks, b[len(t):])
	}
	return e, nil
}
