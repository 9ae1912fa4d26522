package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

// A Disclosed is a record as it is stored, with what opens it, and nothing else, to somebody who has no identity.
type Disclosed struct {
	Record []byte        // header and sealed payload: docs/store.md
	Key    [KeySize]byte // of this record alone
	Proof  []byte        // a c2sp.org/tlog-proof that the record is in the log; nil where there is none
}

// A Content is what a disclosed record holds.
type Content struct {
	Number    uint64
	Time      time.Time // when it was written, by the host's clock, UTC
	Type      string    // "report", "traceback", "redemption", "hold" or "release"
	Leaf      translog.Leaf
	Plaintext []byte // of a trace-back: the token, then what it brought
	record    record
}

// Disclose opens an export as [Unseal] does, and gives each record with its own key, in the order of numbers.
func Disclose(export []byte, ids ...age.Identity) ([]Disclosed, error) {
	ds, err := disclose(export, ids)
	if err != nil {
		return nil, fmt.Errorf("unseal export: %w", err)
	}
	return ds, nil
}

func disclose(export []byte, ids []age.Identity) ([]Disclosed, error) {
	if err := checkVersion(export, exportMagic, exportVersion); err != nil {
		return nil, err
	}
	var ds []Disclosed
	numbers := map[uint64]int{}
	keys := newKeys(ids)
	for b := export[exportHeader:]; len(b) > 0; {
		r, err := decodeRecord(b)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAltered, err)
		}
		whole := b[:r.size():r.size()]
		b = b[r.size():]
		i, there := numbers[r.number]
		switch {
		case r.kind == typeBatch:
			keys.add(r)
		case r.kind == typeProof:
			if !there || ds[i].Proof != nil {
				return nil, fmt.Errorf("%w: a proof of record %d, which is not there", ErrAltered, r.number)
			}
			ds[i].Proof = r.payload
		case !r.kind.located() || there:
			return nil, fmt.Errorf("%w: a record of type %s, number %d", ErrAltered, r.kind, r.number)
		default:
			key, err := keys.of(r)
			if err != nil {
				return nil, err
			}
			numbers[r.number] = len(ds)
			ds = append(ds, Disclosed{Record: whole, Key: key})
		}
	}
	return ds, nil
}

// Open opens a disclosed record. What its key does not open is [ErrAltered].
func (d Disclosed) Open() (Content, error) {
	r, err := decodeRecord(d.Record)
	if err == nil && (!r.kind.located() || r.size() != int64(len(d.Record))) {
		err = errors.New("decode record: it is not one record of a token")
	}
	if err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrAltered, err)
	}
	b, err := openRecord(r, d.Key)
	if err != nil {
		return Content{}, err
	}
	return Content{r.number, time.Unix(0, r.time).UTC(), r.kind.String(), r.leaf(), b, r}, nil
}

// An Assembled is what records say of the one token that they are all of.
type Assembled struct {
	Evidence
	Custody  []Custody // in the order of numbers
	Contents []Content // of the records
}

// maxAssembled bounds what the records of one token may hold together. Each is small while it is compressed, and may come from anybody.
const maxAssembled = 4 * maxPlaintext

// Assemble opens records and puts together what they say. The last is the redemption that let them out, and it has to say so:
// what it does not name, or names and is missing, is [ErrAltered], as is everything that is not of the token.
func Assemble(ds []Disclosed) (Assembled, error) {
	var a Assembled
	octets := 0
	for _, d := range ds {
		c, err := d.Open()
		if err == nil {
			if octets += len(c.Plaintext); octets > maxAssembled {
				err = fmt.Errorf("%w: more than %d octets", ErrAltered, maxAssembled)
			}
		}
		if err != nil {
			return Assembled{}, fmt.Errorf("assemble evidence: %w", err)
		}
		a.Contents = append(a.Contents, c)
	}
	var err error
	if a.Evidence, a.Custody, err = assemble(a.Contents); err != nil {
		return Assembled{}, fmt.Errorf("assemble evidence: %w", err)
	}
	return a, nil
}

func assemble(cs []Content) (e Evidence, custody []Custody, err error) {
	reports := 0
	for i, c := range cs {
		if i > 0 && c.Number <= cs[i-1].Number {
			return e, nil, fmt.Errorf("%w: record %d is twice there, or out of order", ErrAltered, c.Number)
		}
		if c.record.kind != typeReport {
			continue
		}
		t := stop.TokenOf(c.Plaintext)
		if c.record.locator != locate(reportLabel, t) || reports > 0 && t != e.Token {
			return e, nil, fmt.Errorf("%w: the report is not what its token names", ErrAltered)
		}
		if reports++; reports == 1 {
			e = Evidence{Token: t, Report: c.Plaintext, Kept: c.Time}
		}
	}
	if reports == 0 {
		return e, nil, fmt.Errorf("%w: no report", ErrAltered)
	}
	for _, c := range cs {
		if c.record.locator != c.record.kind.locatorOf(e.Token) {
			return e, nil, fmt.Errorf("%w: record %d is of another token", ErrAltered, c.Number)
		}
		switch c.record.kind {
		case typeReport:
		case typeTraceback:
			brought, ok := bytes.CutPrefix(c.Plaintext, e.Token[:])
			if !ok {
				return e, nil, fmt.Errorf("%w: a trace-back is of another token", ErrAltered)
			}
			e.Tracebacks = append(e.Tracebacks, brought)
		default:
			act, err := parseCustody(c.record, c.Plaintext)
			if err != nil {
				return e, nil, fmt.Errorf("%w: %w", ErrAltered, err)
			}
			custody = append(custody, act)
		}
	}
	return e, custody, checkHandedOut(cs, custody)
}

// checkHandedOut holds records against what the last of them, a redemption, says that it let out.
func checkHandedOut(cs []Content, custody []Custody) error {
	last := len(cs) - 1
	if len(custody) == 0 || cs[last].record.kind != typeRedemption {
		return fmt.Errorf("%w: the redemption that let the records out is missing", ErrAltered)
	}
	var records []record
	for _, c := range cs[:last] {
		records = append(records, c.record)
	}
	want, got := custody[len(custody)-1].handedOut, handOut(records)
	switch {
	case want == nil:
		return fmt.Errorf("%w: the last redemption let nothing out", ErrAltered)
	case got == nil || *got != *want:
		return fmt.Errorf("%w: the last redemption let out %d records, which are not the %d that are here", ErrAltered, want.Records, len(records))
	}
	return nil
}
