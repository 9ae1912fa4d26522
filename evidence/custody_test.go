package evidence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

// What was done with a token's evidence goes with it, out of closed segments too, and nothing of any other token.
func TestCustody(t *testing.T) {
	id := newIdentity(t)
	key := newLogKey(t)
	c := small
	c.LogKey = &key
	s := openTest(t, c, id)
	token, other := keep(t, s, "report one"), keep(t, s, "report two")
	keepTraceback(t, s, token, "asked")
	export(t, s, token)
	export(t, s, other)
	if err := s.Hold(t.Context(), Redemption{Token: token, By: "judge", Reason: "order 18"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context(), Redemption{Token: token, By: "judge", Reason: "once more"}); !errors.Is(err, ErrAsBefore) {
		t.Fatal(err)
	}
	fill(t, s, 4)
	if err := s.Release(t.Context(), Redemption{Token: token, By: "clerk", Reason: "over"}); err != nil {
		t.Fatal(err)
	}
	signed := Redemption{Token: token, By: "bob", Reason: "case 8", Request: "redeem\n" + strings.Repeat("é", 2000), Signature: "-----BEGIN"}
	sealed, err := s.Export(t.Context(), signed)
	if err != nil {
		t.Fatal(err)
	}
	ds, err := Disclose(sealed, id)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Assemble(ds)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, act := range a.Custody {
		got = append(got, fmt.Sprintf("%s %s %q %s", act.Act, act.By, act.Reason, act.Outcome))
	}
	want := `redemption alice "case 7" exported, hold judge "order 18" held, hold judge "once more" as before, release clerk "over" released, redemption bob "case 8" exported`
	if strings.Join(got, ", ") != want {
		t.Errorf("custody: %s\nwant %s", strings.Join(got, ", "), want)
	}
	if last := a.Custody[len(a.Custody)-1]; last.Request != signed.Request || last.Signature != signed.Signature {
		t.Errorf("the request is %q, signed %q", last.Request, last.Signature)
	}
	for i, d := range ds {
		p, err := translog.ParseProof(d.Proof)
		if err != nil || p.Leaf != a.Contents[i].Leaf || uint64(p.Index) != a.Contents[i].Number {
			t.Errorf("record %d, a %s: %+v, %v", a.Contents[i].Number, a.Contents[i].Type, p, err)
		}
	}
	// A key opens one record.
	ds[0].Key, ds[1].Key = ds[1].Key, ds[0].Key
	if _, err := Assemble(ds); !errors.Is(err, ErrAltered) {
		t.Errorf("with exchanged keys: %v, want %v", err, ErrAltered)
	}
}

// That somebody asked for a token that stands for nothing does not make it one that can be held, or handed out.
func TestCustodyAloneIsNoEvidence(t *testing.T) {
	s := openTest(t, Config{}, newIdentity(t))
	never := stop.Token{1}
	for range 2 {
		if b, err := s.Export(t.Context(), asking(never)); !errors.Is(err, ErrNotFound) || b != nil {
			t.Errorf("Export: %d bytes, %v, want none and %v", len(b), err, ErrNotFound)
		}
		if err := s.Hold(t.Context(), asking(never)); !errors.Is(err, ErrNotFound) {
			t.Errorf("Hold: %v, want %v", err, ErrNotFound)
		}
	}
}

// A table of the version before finds no custody: it is made anew, and an audit says so before.
func TestOldTables(t *testing.T) {
	id, key := newIdentity(t), newLogKey(t)
	c := small
	c.LogKey = &key
	s := openTest(t, c, id)
	token := keep(t, s, "report one")
	export(t, s, token)
	fill(t, s, 3)
	closeStore(t, s)
	path := tablePath(s.dir, 1)
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// As it was: without redemptions.
	old := openSegment{index: map[locator][]int64{}, batches: map[uint64]int64{}}
	eachRecord(t, s.dir, func(file string, at int64, r record) {
		if file == segmentPath(s.dir, 1) && r.kind != typeRedemption {
			old.admit(at, r)
		}
	})
	h, err := decodeTableHeader(now, int64(len(now)))
	if err != nil {
		t.Fatal(err)
	}
	old.segment, old.size, old.next, old.last = segment{number: 1}, h.size, h.next, h.last
	before := old.table()
	binary.BigEndian.PutUint32(before[12:], 2)
	binary.BigEndian.PutUint32(before[64:], crc32.Checksum(before[:64], castagnoli))
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := translog.NewPolicy(key.Verifier(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Audit(t.Context(), s.dir, p)
	if err != nil || len(a.Findings) != 1 || a.Findings[0].Verdict != translog.Uncovered || !strings.Contains(a.Findings[0].Detail, "another version") {
		t.Errorf("audit: %v, %v", a.Findings, err)
	}
	s = openAt(t, s.dir, c, id)
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, now) {
		t.Errorf("it was not made anew (%v)", err)
	}
	ds, err := Disclose(export(t, s, token), id)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Assemble(ds); err != nil || len(e.Custody) != 2 {
		t.Errorf("custody: %+v, %v", e.Custody, err)
	}
}

// Records that are small and expand to much do not take the memory of who opens them.
func TestAssembleIsBounded(t *testing.T) {
	packed, err := pack(make([]byte, maxPlaintext-1), step)
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]byte, batchKey)
	sealed, err := sealRecord(nil, record{kind: typeReport, number: 9, batch: 1}, batch, packed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := recordKey(batch, 9)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) > 1<<20 {
		t.Fatalf("%d octets are no bomb", len(sealed))
	}
	var ds []Disclosed
	for range 1000 {
		ds = append(ds, Disclosed{Record: sealed, Key: key})
	}
	if _, err := Assemble(ds); !errors.Is(err, ErrAltered) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v, want %v: more than", err, ErrAltered)
	}
}

// What a record of custody says may come from anybody, and is shown.
func TestParseCustody(t *testing.T) {
	for content, want := range map[string]bool{
		`{"by":"a","reason":"b","outcome":"held"}`:                                              true,
		`{"by":"a","reason":"b","outcome":"exported","handed_out":{"records":1,"sha256":"00"}}`: true,
		`{"by":"a","reason":"b","outcome":"exported","request":"x","signature":"y"}`:            true,
		`{"by":"a","reason":"b","outcome":"exported","request":"x"}`:                            false,
		`{"by":"a\nb","reason":"b","outcome":"held"}`:                                           false,
		`{"by":"a","reason":"` + strings.Repeat("b", maxReason+1) + `","outcome":"held"}`:       false,
		`{"by":"a","reason":"b","outcome":"\u001b[2J"}`:                                         false,
		`{"by":"a","reason":"b","outcome":"held","more":1}`:                                     false,
		`{"by":"a","reason":"b","outcome":"held"}{}`:                                            false,
		`[]`: false, ``: false,
	} {
		if _, err := parseCustody(record{kind: typeHold}, []byte(content)); (err == nil) != want {
			t.Errorf("%.80s: %v", content, err)
		}
	}
}
