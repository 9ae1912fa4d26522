package evidence

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// The bytes that docs/store.md describes. They may change only together with the version.
func TestFormat(t *testing.T) {
	header := appendSegmentHeader(nil, segment{number: 1, first: 0, made: 1_000_000_000_000_000_001})
	if got, want := hex.EncodeToString(header), "73746f70642073746f72650a"+"00000002"+"0000000000000001"+"0000000000000000"+"0de0b6b3a7640001"+"a509334e"; got != want {
		t.Errorf("segment header\n got %s\nwant %s", got, want)
	}
	r := record{
		kind:    typeReport,
		number:  3,
		batch:   2,
		time:    1_000_000_000_000_000_001,
		locator: locate(reportLabel, stop.TokenOf([]byte("abc"))),
		payload: []byte("payload"),
	}
	want := "73726563" + "00000007" + "00000002" + "0000000000000003" + "0de0b6b3a7640001" +
		"e9ef987ae710b2e2c9a808f29f7f95d5c8f40177b61cc7f9085e534f28b8350e" + "0000000000000002" + "9ec16b37" + "7061796c6f6164"
	if got := hex.EncodeToString(appendRecord(nil, r)); got != want {
		t.Errorf("record\n got %s\nwant %s", got, want)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for kind := range typeNames {
		f.Add(appendRecord(nil, record{kind: kind, number: 9, time: 1, payload: []byte("payload")}))
		f.Add(appendRecord(nil, record{kind: kind, number: 9, batch: 2, time: 1, payload: []byte("payload")}))
	}
	f.Add(appendRecord(nil, record{kind: 99}))
	f.Add(appendRecord(nil, record{kind: typeReport, number: 9, batch: 9}))
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			if diff := cmp.Diff(record{}, r, cmp.AllowUnexported(record{})); diff != "" {
				t.Fatalf("record with error %v is not zero (-want +got):\n%s", err, diff)
			}
			return
		}
		if again := appendRecord(nil, r); !bytes.Equal(again, b[:r.size()]) {
			t.Fatalf("decoded %x, encoded again %x", b[:r.size()], again)
		}
	})
}

func TestDecodeRecordRefuses(t *testing.T) {
	whole := appendRecord(nil, record{kind: typeReport, number: 9, batch: 2, payload: []byte("payload")})
	huge := bytes.Clone(whole)
	copy(huge[4:], "\xff\xff\xff\xff")
	for name, b := range map[string][]byte{
		"empty":        nil,
		"header short": whole[:recordHeader-1],
		"payload cut":  whole[:len(whole)-1],
		"length":       huge,
		"type":         appendRecord(nil, record{kind: 99}),
		"no batch":     appendRecord(nil, record{kind: typeReport, number: 9}),
		"batch behind": appendRecord(nil, record{kind: typeReport, number: 9, batch: 9}),
		"not sealed":   appendRecord(nil, record{kind: typeStart, number: 9, batch: 2}),
	} {
		if _, err := decodeRecord(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzUnseal(f *testing.F) {
	id := newIdentity(f)
	s := openTest(f, Config{}, id)
	token := keep(f, s, "report")
	f.Add(export(f, s, token))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Unseal(b, id)
		if err != nil {
			if diff := cmp.Diff(Evidence{}, e); diff != "" {
				t.Fatalf("evidence with error %v is not zero:\n%s", err, diff)
			}
			return
		}
		if stop.TokenOf(e.Report) != e.Token {
			t.Fatal("token is not the report's")
		}
	})
}

func FuzzParseControlRequest(f *testing.F) {
	token := stop.TokenOf(nil).String()
	f.Add([]byte(`{"export":{"token":"` + token + `","by":"a","reason":"b"}}`))
	f.Add([]byte(`{"export":{"token":"` + token + `","by":"a\nb","reason":"b"}}`))
	f.Add([]byte(`{"hold":{"token":"` + token + `","by":"a","reason":"b"}}`))
	f.Add([]byte(`{"release":{"token":"` + token + `","by":"a","reason":"b"}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, r, err := parseControlRequest(line)
		if err != nil && (r != (Redemption{}) || q != (controlRequest{})) {
			t.Fatalf("request with error %v is not zero: %v, %v", err, q, r)
		}
		if err == nil && r.check() != nil {
			t.Fatalf("accepted %+v: %v", r, r.check())
		}
	})
}

func TestRedemptionCheck(t *testing.T) {
	for _, test := range []struct {
		name, by, reason string
		ok               bool
	}{
		{"plain", "alice", "case 7", true},
		{"at its bounds", strings.Repeat("a", maxBy), strings.Repeat("b", maxReason), true},
		{"not ASCII", "Åsa", "fall 7 – intrång", true},
		{"no by", "", "case 7", false},
		{"no reason", "alice", "", false},
		{"blank", " \t", "case 7", false},
		{"two lines", "alice", "case\n7", false},
		{"line separator", "alice", "case\u20287", false},
		{"control", "alice\x1b[2J", "case 7", false},
		{"not UTF-8", "alice\xff", "case 7", false},
		{"by too long", strings.Repeat("a", maxBy+1), "case 7", false},
		{"reason too long", "alice", strings.Repeat("b", maxReason+1), false},
	} {
		err := Redemption{By: test.by, Reason: test.reason}.check()
		if (err == nil) != test.ok {
			t.Errorf("%s: error %v, want ok %t", test.name, err, test.ok)
		}
	}
	for _, test := range []struct {
		name, request, signature string
		ok                       bool
	}{
		{"signed", "redeem\nit", "-----", true},
		{"at its bounds", strings.Repeat("\x01", MaxRequest), strings.Repeat("\"", MaxSignature), true},
		{"not signed", "redeem it", "", false},
		{"signed nothing", "", "-----", false},
		{"too long", strings.Repeat("a", MaxRequest+1), "-----", false},
		{"signature too long", "redeem it", strings.Repeat("a", MaxSignature+1), false},
		{"not UTF-8", "redeem\xff", "-----", false},
	} {
		r := Redemption{Token: stop.Token{1}, By: strings.Repeat("<", maxBy), Reason: strings.Repeat("<", maxReason), Request: test.request, Signature: test.signature}
		if err := r.check(); (err == nil) != test.ok {
			t.Errorf("request %s: error %v, want ok %t", test.name, err, test.ok)
		}
		line, err := json.Marshal(controlRequest{Export: controlAct(r)})
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := parseControlRequest(line); test.ok && (err != nil || got != r || len(line) >= maxControlLine) {
			t.Errorf("request %s: %d bytes on the control socket, %v", test.name, len(line), err)
		}
	}
}

func TestSegmentVersion(t *testing.T) {
	whole := string(appendSegmentHeader(nil, segment{number: 1}))
	for _, test := range []struct {
		header string
		want   error
	}{
		{whole, nil},
		{whole[:len(whole)-1], ErrAltered},
		{whole[:20] + "x" + whole[21:], ErrAltered},
		{"stopd store\n\x00\x00\x00\x01", ErrVersion},
		{"stopd store\n\x00\x00\x00\x03", ErrVersion},
		{"stopd store\n\x00\x00\x00\x00", ErrVersion},
		{"stopd stork\n\x00\x00\x00\x02", ErrAltered},
		{"stopd store\n\x00\x00\x00", ErrAltered},
		{"", ErrAltered},
	} {
		if _, err := decodeSegmentHeader([]byte(test.header)); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("header %q: %v, want %v", test.header, err, test.want)
		}
	}
}
