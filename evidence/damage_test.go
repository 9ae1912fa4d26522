package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// written is a closed store of one segment: a start, a report with a trace-back, and last another report.
type written struct {
	id          *age.X25519Identity
	dir, path   string
	content     []byte
	token, last stop.Token
	evidence    Evidence // of token
	lastAt      int      // offset of last's record
}

func writeStore(t *testing.T) written {
	t.Helper()
	w := written{id: newIdentity(t)}
	now := time.Now()
	s := openTest(t, Config{Now: func() time.Time { return now }}, w.id)
	w.dir, w.path = s.dir, s.open.path
	w.token = keep(t, s, "report one")
	keepTraceback(t, s, w.token, "asked")
	w.evidence = Evidence{Token: w.token, Report: []byte("report one"), Tracebacks: [][]byte{[]byte("asked")}, Kept: time.Unix(0, now.UnixNano()).UTC()}
	w.last = keep(t, s, "report two")
	closeStore(t, s)
	all := entries(t, w.dir)
	w.lastAt = int(all[len(all)-1].Offset)
	var err error
	if w.content, err = os.ReadFile(w.path); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w written) restore(t *testing.T, content []byte) {
	t.Helper()
	if err := os.WriteFile(w.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever byte of a store is altered, a token gives the original or an error, never anything else.
func TestEveryByteFlipped(t *testing.T) {
	w := writeStore(t)
	c := configFor(Config{disk: quick()}, w.id)
	step := 13 // it shares no factor with the sizes of fields
	if soak {
		step = 1
	}
	for i := 0; i < len(w.content); i += step {
		flipped := bytes.Clone(w.content)
		flipped[i] ^= 1 << (i % 8)
		w.restore(t, flipped)
		export, err := Export(t.Context(), w.dir, asking(w.token), c)
		if i >= w.lastAt {
			// Where only the last record is no longer whole, a crash explains it.
			if err != nil {
				t.Fatalf("byte %d of the last record: %v", i, err)
			}
			if _, err := Export(t.Context(), w.dir, asking(w.last), c); !errors.Is(err, ErrNotFound) {
				t.Fatalf("byte %d of the last record: %v, want %v", i, err, ErrNotFound)
			}
		} else if !errors.Is(err, ErrAltered) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d: %v, want %v or %v", i, err, ErrAltered, ErrVersion)
		}
		if export == nil {
			continue
		}
		e, unsealing := Unseal(export, w.id)
		if unsealing != nil {
			t.Fatalf("byte %d: %v", i, unsealing)
		}
		if err != nil {
			e.Tracebacks = w.evidence.Tracebacks // one may be missing, and the error says so
		}
		if diff := cmp.Diff(w.evidence, e); diff != "" {
			t.Fatalf("byte %d: evidence (-want +got):\n%s", i, diff)
		}
	}
}

func TestEveryByteOfAnExportFlipped(t *testing.T) {
	w := writeStore(t)
	export, err := Export(t.Context(), w.dir, asking(w.token), configFor(Config{}, w.id))
	if err != nil {
		t.Fatal(err)
	}
	for i := range export {
		flipped := bytes.Clone(export)
		flipped[i] ^= 1 << (i % 8)
		if _, err := Unseal(flipped, w.id); !errors.Is(err, ErrAltered) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d: %v, want %v or %v", i, err, ErrAltered, ErrVersion)
		}
		if e, err := Unseal(export[:i], w.id); err == nil && !bytes.Equal(e.Report, w.evidence.Report) {
			t.Fatalf("cut at %d: report %q", i, e.Report)
		}
	}
}

// A whole, checksummed record that is not of the token it is filed under is found out by its content.
func TestForgedRecords(t *testing.T) {
	w := writeStore(t)
	b, payload, err := newBatch(1, time.Now(), []age.Recipient{w.id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	other, _, err := newBatch(1, time.Now(), []age.Recipient{w.id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	seal := func(r record, key []byte, content ...[]byte) []byte {
		packed, err := pack(bytes.Join(content, nil), step)
		if err != nil {
			t.Fatal(err)
		}
		r.batch = 1
		sealed, err := sealRecord(nil, r, key, packed)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	key := b.key()
	batch := appendRecord(nil, record{kind: typeBatch, number: 1, locator: typeLocator(typeBatch), payload: payload})
	report := record{kind: typeReport, number: 2, locator: locate(reportLabel, w.token)}
	traceback := record{kind: typeTraceback, number: 3, locator: locate(tracebackLabel, w.token)}
	with := func(r record, change func(*record)) record { change(&r); return r }
	good := seal(report, key, []byte("report one"))
	moved := bytes.Clone(good)
	moved[19]++ // its number
	finishRecord(moved)
	loose := appendRecord(nil, with(report, func(r *record) { r.batch, r.payload = 1, []byte("report one") }))
	// redeemed seals a redemption that lets records out.
	redeemed := func(out [][]byte) []byte {
		var rs []record
		for _, b := range out {
			if r, err := decodeRecord(b); err == nil && r.kind != typeBatch {
				rs = append(rs, r)
			}
		}
		content, err := json.Marshal(redemptionPayload{By: "alice", Reason: "case 7", Outcome: "exported", HandedOut: handOut(rs)})
		if err != nil {
			t.Fatal(err)
		}
		return seal(record{kind: typeRedemption, number: 9, locator: report.locator}, key, content)
	}
	asked := seal(traceback, key, w.token[:], []byte("asked"))
	for _, test := range []struct {
		name    string
		records [][]byte
		want    error
	}{
		{"as written", [][]byte{batch, good, asked}, nil},
		{"twice", [][]byte{batch, good, good}, ErrAltered},
		{"out of order", [][]byte{batch, asked, good}, ErrAltered},
		{"no batch", [][]byte{good}, ErrAltered},
		{"another batch's key", [][]byte{batch, seal(report, other.key(), []byte("report one"))}, ErrAltered},
		{"another number", [][]byte{batch, moved}, ErrAltered},
		{"another report", [][]byte{batch, seal(report, key, []byte("report 1"))}, ErrAltered},
		{"another's trace-back", [][]byte{batch, good, seal(traceback, key, w.last[:], []byte("asked"))}, ErrAltered},
		{"trace-back without token", [][]byte{batch, good, seal(traceback, key, []byte("asked"))}, ErrAltered},
		{"report's locator on a trace-back", [][]byte{batch, good, seal(with(traceback, func(r *record) { r.locator = report.locator }), key, w.token[:])}, ErrAltered},
		{"two reports", [][]byte{batch, good, seal(with(report, func(r *record) { r.locator = locate(reportLabel, w.last) }), key, []byte("report two"))}, ErrAltered},
		{"not sealed", [][]byte{batch, loose}, ErrAltered},
		{"a start", [][]byte{batch, good, appendRecord(nil, record{kind: typeStart, number: 4})}, ErrAltered},
		{"no report", [][]byte{batch, seal(traceback, key, w.token[:])}, ErrAltered},
		{"nothing", nil, ErrAltered},
	} {
		export := append(appendExportHeader(nil), bytes.Join(append(test.records, redeemed(test.records)), nil)...)
		if _, err := Unseal(export, w.id); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// What was let out is in the redemption: nothing can be left out of it, added or put in another's place.
func TestStrippedExports(t *testing.T) {
	w := writeStore(t)
	c := configFor(Config{}, w.id)
	if _, err := Export(t.Context(), w.dir, asking(w.token), c); err != nil {
		t.Fatal(err)
	}
	export, err := Export(t.Context(), w.dir, asking(w.token), c)
	if err != nil {
		t.Fatal(err)
	}
	var records []record
	for b := export[exportHeader:]; len(b) > 0; b = b[records[len(records)-1].size():] {
		r, err := decodeRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	with := func(keep func(i int, r record) bool) []byte {
		b := appendExportHeader(nil)
		for i, r := range records {
			if keep(i, r) {
				b = appendRecord(b, r)
			}
		}
		return b
	}
	if e, err := Unseal(with(func(int, record) bool { return true }), w.id); err != nil || !cmp.Equal(e, w.evidence) {
		t.Fatalf("as it is: %v", err)
	}
	last := len(records) - 1
	for i, without := range records {
		_, err := Unseal(with(func(j int, r record) bool { return j != i }), w.id)
		if i == last { // as it was at the redemption before, which is what the records prove
			if err != nil {
				t.Errorf("without the last redemption: %v", err)
			}
			continue
		}
		if !errors.Is(err, ErrAltered) {
			t.Errorf("without record %d, a %s: %v, want %v", without.number, without.kind, err, ErrAltered)
		}
	}
}

func TestTornTail(t *testing.T) {
	w := writeStore(t)
	tails := map[string][]byte{
		"zeros":   append(bytes.Clone(w.content[:w.lastAt]), make([]byte, 8192)...),
		"garbage": append(bytes.Clone(w.content[:w.lastAt+90]), bytes.Repeat([]byte(recordMagic), 500)...),
	}
	for cut := w.lastAt; cut < len(w.content); cut++ {
		tails["cut"] = w.content[:cut]
		for name, content := range tails {
			w.restore(t, content)
			before := len(entries(t, w.dir)) // which leaves out the torn one
			s := openAt(t, w.dir, Config{disk: quick()}, w.id)
			if e, err := Unseal(export(t, s, w.token), w.id); err != nil || !cmp.Equal(e, w.evidence) {
				t.Fatalf("%s at %d: %v\n%s", name, cut, err, cmp.Diff(w.evidence, e))
			}
			if _, err := s.Export(t.Context(), asking(w.last)); !errors.Is(err, ErrNotFound) {
				t.Fatalf("%s at %d: the torn report: %v, want %v", name, cut, err, ErrNotFound)
			}
			closeStore(t, s)
			start := entries(t, w.dir)[before]
			if want := int64(len(content) - w.lastAt); start.Type != "start" || start.Cut != want || start.Offset != int64(w.lastAt) {
				t.Fatalf("%s at %d: %+v, want a start that cut %d", name, cut, start, want)
			}
		}
		clear(tails)
	}
}

func TestDamageInTheMiddle(t *testing.T) {
	w := writeStore(t)
	all := entries(t, w.dir) // how many batches are among them depends on the time
	first := all[slices.IndexFunc(all, func(e Entry) bool { return e.Type == "report" })]
	flipped := bytes.Clone(w.content)
	flipped[first.Offset+recordHeader+3] ^= 1
	removed := append(bytes.Clone(w.content[:first.Offset]), w.content[int(first.Offset)+recordHeader+first.Size:]...)
	long := bytes.Clone(w.content)
	copy(long[first.Offset+4:], "\x00\x7f\xff\xff") // a length that reaches past the end
	tail := append(bytes.Clone(w.content), make([]byte, maxTail+1)...)
	for _, test := range []struct {
		name    string
		content []byte
		at      int64
		whole   int // entries that List still shows
	}{
		{"flipped", flipped, first.Offset, len(all) - 1},
		{"removed", removed, first.Offset, len(all) - 1},
		{"length", long, first.Offset, len(all) - 1},
		{"longer than a crash leaves", tail, int64(len(w.content)), len(all)},
	} {
		w.restore(t, test.content)
		if s, err := Open(w.dir, configFor(Config{}, w.id)); !errors.Is(err, ErrAltered) {
			s.Close()
			t.Errorf("%s: Open: %v, want %v", test.name, err, ErrAltered)
		}
		if got, err := os.ReadFile(w.path); err != nil || !bytes.Equal(got, test.content) {
			t.Errorf("%s: a refused Open changed the store (%v)", test.name, err)
		}
		n := 0
		err := List(w.dir, func(Entry) error { n++; return nil })
		if !errors.Is(err, ErrAltered) || n != test.whole {
			t.Errorf("%s: List: %d entries and %v, want %d and %v", test.name, n, err, test.whole, ErrAltered)
		}
		want := layout{damaged: test.at}.err(w.path).Error()
		if err != nil && !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%s: List: %q does not say %q", test.name, err, want)
		}
		_, err = Export(t.Context(), w.dir, asking(stop.Token{1}), configFor(Config{}, w.id))
		if !errors.Is(err, ErrAltered) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: Export of no token: %v, want %v", test.name, err, ErrAltered)
		}
		sealed, err := Export(t.Context(), w.dir, asking(w.last), configFor(Config{}, w.id))
		if e, unsealing := Unseal(sealed, w.id); !errors.Is(err, ErrAltered) || unsealing != nil || e.Token != w.last {
			t.Errorf("%s: Export of a sound report: %v, %v", test.name, err, unsealing)
		}
	}
}

func TestUnfinishedCreation(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(segmentPath(dir, 1)+tempSuffix, []byte("stopd"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t)
	s := openAt(t, dir, Config{}, id)
	if _, err := Unseal(export(t, s, keep(t, s, "report")), id); err != nil {
		t.Error(err)
	}
}
