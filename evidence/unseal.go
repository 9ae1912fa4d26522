package evidence

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
)

// An export is its magic and version, then records as they are in the store: the batches, the reports and the
// trace-backs, each in order.
const (
	exportMagic  = "stopd export\n"
	exportHeader = len(exportMagic) + 4
)

func appendExportHeader(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, exportMagic...), version)
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
	if err := checkVersion(export, exportMagic); err != nil {
		return Evidence{}, err
	}
	var reports, tracebacks []record
	keys := newKeys(ids)
	for b := export[exportHeader:]; len(b) > 0; {
		r, err := decodeRecord(b)
		if err != nil {
			return Evidence{}, fmt.Errorf("%w: %w", ErrAltered, err)
		}
		switch r.kind {
		case typeBatch:
			keys.add(r)
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
		report, err := keys.open(r)
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
	slices.SortStableFunc(tracebacks, func(a, b record) int { return cmp.Compare(a.number, b.number) })
	for _, r := range tracebacks {
		b, err := keys.open(r)
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

// keys are those of batches, each unwrapped when it is first needed.
type keys struct {
	ids     []age.Identity
	wrapped map[uint64][]byte
	opened  map[uint64][]byte
}

func newKeys(ids []age.Identity) *keys {
	return &keys{ids: ids, wrapped: map[uint64][]byte{}, opened: map[uint64][]byte{}}
}

// add remembers a batch's record. Its payload is kept.
func (k *keys) add(r record) { k.wrapped[r.number] = r.payload }

// open gives the content of a sealed record.
func (k *keys) open(r record) ([]byte, error) {
	key, ok := k.opened[r.batch]
	if !ok {
		payload, ok := k.wrapped[r.batch]
		if !ok {
			return nil, fmt.Errorf("open record: %w: its batch %d is missing", ErrAltered, r.batch)
		}
		var err error
		if key, err = unwrap(payload, k.ids); err != nil {
			return nil, err
		}
		k.opened[r.batch] = key
	}
	return openRecord(r, key)
}
