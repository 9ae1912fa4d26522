package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Custody is what somebody did with a token's evidence, as the host recorded it: a record of its log.
type Custody struct {
	Number  uint64    // of the record
	Time    time.Time // by the host's clock, UTC
	Act     string    // "redemption", "hold" or "release"
	By      string
	Reason  string
	Outcome string // of docs/store.md
	// Request and Signature are what a redemption was asked for with, if it was: see [Redemption].
	Request, Signature string
	handedOut          *handedOut
}

// parseCustody reads the plaintext of a redemption, hold or release.
func parseCustody(r record, plaintext []byte) (Custody, error) {
	var p redemptionPayload
	d := json.NewDecoder(bytes.NewReader(plaintext))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Custody{}, fmt.Errorf("read %s: %w", r.kind, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Custody{}, fmt.Errorf("read %s: more than one value", r.kind)
	}
	// Whoever made the record may not have been a store.
	if err := (Redemption{By: p.By, Reason: p.Reason, Request: p.Request, Signature: p.Signature}).check(); err != nil {
		return Custody{}, fmt.Errorf("read %s: %w", r.kind, err)
	}
	if err := checkLine("outcome", p.Outcome, maxBy); err != nil {
		return Custody{}, fmt.Errorf("read %s: %w", r.kind, err)
	}
	return Custody{
		Number: r.number, Time: time.Unix(0, r.time).UTC(), Act: r.kind.String(), By: p.By, Reason: p.Reason, Outcome: p.Outcome,
		Request: p.Request, Signature: p.Signature, handedOut: p.HandedOut,
	}, nil
}
