package report

import (
	"fmt"
	"strings"

	"github.com/stopd/stopd"
)

// A Redeemed is everything that a token stands for, as `stopctl redeem -format json` prints it.
type Redeemed struct {
	Token     string           `json:"token"`
	Report    Report           `json:"report"`
	Traceback []stop.Traceback `json:"traceback"`
}

// EncodeTraceback writes a trace-back record.
func EncodeTraceback(ts []stop.Traceback) []byte {
	var e encoder
	e.value("", ts)
	return e.b
}

// DecodeTraceback reads a trace-back record. On failure it is nil.
func DecodeTraceback(b []byte) ([]stop.Traceback, error) {
	var ts []stop.Traceback
	d := newDecoder()
	if err := d.decode(b, &ts); err != nil {
		return nil, fmt.Errorf("read trace-back: %w", err)
	}
	return ts, nil
}

// FirstTraceback reads the first trace-back record that can be read, in the order of the store, and counts those that cannot, and those that
// come after it. A host writes one for a token: whoever becomes root there later can add others, and takes nothing from the first by it.
func FirstTraceback(records [][]byte) (ts []stop.Traceback, unreadable, further int) {
	found := false
	for _, b := range records {
		read, err := DecodeTraceback(b)
		switch {
		case err != nil:
			unreadable++
		case found:
			further++
		default:
			ts, found = read, true
		}
	}
	return ts, unreadable, further
}

// EncodeRedeemed writes what a token stands for, on one line. The report's bytes are in it as they are.
func EncodeRedeemed(token string, report []byte, ts []stop.Traceback) []byte {
	e := encoder{}
	e.raw(`{"token":`)
	e.text(token)
	e.raw(`,"report":`)
	e.raw(string(report))
	e.raw(`,"traceback":`)
	e.value("", ts)
	e.raw("}\n")
	return e.b
}

// DecodeRedeemed reads what `stopctl redeem -format json` printed, however it was indented since. It returns
// the report's bytes as well, canonical again, so that they can be hashed. On failure all is zero.
func DecodeRedeemed(b []byte) (Redeemed, []byte, error) {
	var r Redeemed
	d := newDecoder()
	if err := d.decode(b, &r); err != nil {
		return Redeemed{}, nil, fmt.Errorf("read redeemed report: %w", err)
	}
	r.Report.margins = margins{below(".report", d.unknown), below(".report", d.short)}
	canonical := Encode(r.Report)
	var err error
	// What else the text had beside these bytes is not what the token stands for.
	if r.Report, err = Decode(canonical); err != nil {
		return Redeemed{}, nil, fmt.Errorf("read redeemed report: %w", err)
	}
	return r, canonical, nil
}

// below keeps what lies below a path, by its path from there.
func below[V any](prefix string, all map[string]V) map[string]V {
	some := map[string]V{}
	for path, v := range all {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			some[rest] = v
		}
	}
	return some
}
