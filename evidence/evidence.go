// Package evidence keeps reports, sealed, until somebody who is entitled to them redeems their token.
//
// A store is a directory of append-only files of records; docs/store.md gives its format. What
// is kept is opaque here: bytes go in, their token comes out once they are durable, and only the
// private key of a recipient opens them again. Nothing on disk names a token.
package evidence

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/age"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

var (
	ErrNotFound = errors.New("no such token")
	ErrAltered  = errors.New("evidence altered")
	ErrWrongKey = errors.New("no identity opens the evidence")
	ErrFull     = fmt.Errorf("store full: %w", stop.ErrNoRoom)
	ErrShare    = fmt.Errorf("share of the store used up: %w", stop.ErrNoRoom)
	ErrVersion  = errors.New("unknown store version")
	ErrLocked   = errors.New("store in use by another program")
	// ErrStore is wrapped by every call that follows a failed write or sync: what the file holds
	// past the last durable record is then unknown, so nothing more is acknowledged.
	ErrStore = errors.New("store failed")
)

// Config says how a store seals and bounds what it keeps.
type Config struct {
	// Recipients can each open every record. There is at least one, and age refuses to mix hybrid
	// post-quantum recipients with classic ones.
	Recipients []age.Recipient
	// MaxBytes bounds the store's size in bytes, and with it what one requester and one user may make
	// of it: see [stop.Payer]. What would exceed a bound is refused with [ErrFull] or [ErrShare]. What
	// administrators do is recorded all the same. 0 is no bound.
	MaxBytes int64
	// Retention is how long evidence is kept. Older segments are deleted whole. 0 is for ever.
	Retention time.Duration
	// SegmentBytes is the size from which a segment is closed. 0 is 64 MiB.
	SegmentBytes int64
	// LogKey signs the log, which has a leaf for every record. Without it the log is left alone: its next writer
	// appends what it has missed.
	LogKey *translog.Key
	// AllowVolatile permits a store on tmpfs or ramfs, which does not survive a reboot.
	AllowVolatile bool
	Logger        *slog.Logger     // nil: slog.Default()
	Now           func() time.Time // nil: time.Now

	disk *disk // nil: systemDisk
}

// KeysErased tells whether this build erases all that is left of a batch's key in memory once the batch has closed. Without
// it only the key itself is.
const KeysErased = erases

// Redemption says who asks for a token's evidence, and why.
type Redemption struct {
	Token stop.Token
	// By and Reason are single lines of UTF-8, not blank, of at most 256 and 1,024 bytes.
	By, Reason string
	// Request is the text of the request for it, and Signature what ssh-keygen made of that; both are empty where
	// nothing was signed. They are kept with the record as they are, of at most 16 and 8 KiB of UTF-8; whether the
	// signature is good is for who redeems to check, and for everybody later.
	Request, Signature string
}

const (
	maxBy        = 256
	maxReason    = 1024
	MaxRequest   = 16 << 10
	MaxSignature = 8 << 10
)

func (r Redemption) check() error {
	if err := checkLine("by", r.By, maxBy); err != nil {
		return err
	}
	if err := checkLine("reason", r.Reason, maxReason); err != nil {
		return err
	}
	switch {
	case (r.Request == "") != (r.Signature == ""):
		return errors.New("check redemption: a request without a signature, or a signature without a request")
	case len(r.Request) > MaxRequest || len(r.Signature) > MaxSignature:
		return fmt.Errorf("check redemption: the request is longer than %d bytes, or its signature than %d", MaxRequest, MaxSignature)
	case !utf8.ValidString(r.Request) || !utf8.ValidString(r.Signature):
		return errors.New("check redemption: the request is not UTF-8")
	}
	return nil
}

func checkLine(name, s string, limit int) error {
	switch {
	case strings.TrimSpace(s) == "":
		return fmt.Errorf("check redemption: %s is empty", name)
	case len(s) > limit:
		return fmt.Errorf("check redemption: %s is longer than %d bytes", name, limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("check redemption: %s is not UTF-8", name)
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }):
		return fmt.Errorf("check redemption: %s is not a single line: %q", name, s)
	}
	return nil
}

// Evidence is what a token stands for.
type Evidence struct {
	Token      stop.Token
	Report     []byte    // the exact bytes whose SHA-256 is Token
	Tracebacks [][]byte  // in order of time
	Kept       time.Time // when the report was written, by the host's clock, UTC
}

// Entry is a record as it can be seen without a key.
type Entry struct {
	Time     time.Time // UTC
	Type     string    // "report", "traceback", "redemption" and others of docs/store.md
	Number   uint64    // of the record
	Segment  uint64    // that it is in
	Offset   int64     // in the segment, bytes
	Size     int       // of the payload as stored, bytes
	Redeemed bool      // a report that somebody asked for
	Cut      int64     // of a start: bytes of torn tail that it removed
}
