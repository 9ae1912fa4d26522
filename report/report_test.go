package report_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// same compares reports as they are read: a list without elements is an empty list, whatever made it.
var same = cmp.Options{
	cmpopts.EquateEmpty(),
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}),
	cmpopts.IgnoreUnexported(report.Report{}, trace.Channel{}, trace.End{}),
}

func thesisReport(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "thesis", name+".report.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was written is read as it was, and written again the same.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(300) {
		r := randomReport(seed)
		b := report.Encode(r)
		if !json.Valid(b) || !utf8.Valid(b) {
			t.Fatalf("seed %d: not JSON: %s", seed, b)
		}
		got, err := report.Decode(b)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, b)
		}
		if d := cmp.Diff(r, got, same); d != "" {
			t.Fatalf("seed %d (-written +read):\n%s", seed, d)
		}
		if again := report.Encode(got); !bytes.Equal(b, again) {
			t.Fatalf("seed %d (-written +written again):\n%s", seed, cmp.Diff(string(b), string(again)))
		}
	}
}

// TestDecodeRefuses changes canonical bytes so that they say the same, or less, in other words.
func TestDecodeRefuses(t *testing.T) {
	b := string(thesisReport(t, "b1"))
	tests := []struct{ name, from, to string }{
		{"blank after a colon", `"version":1`, `"version": 1`},
		{"blank before a comma", `"version":1,`, `"version":1 ,`},
		{"blank at the beginning", `{"version"`, ` {"version"`},
		{"newline at the end", `"forwarded":null}`, `"same_as":null}` + "\n"},
		{"more after the end", `"forwarded":null}`, `"same_as":null}{}`},
		{"order", `"version":1,"kind":"sv"`, `"kind":"sv","version":1`},
		{"order below", `"name":"stopd","version":"0.0.0"`, `"version":"0.0.0","name":"stopd"`},
		{"key twice", `"version":1,`, `"version":1,"version":1,`},
		{"key twice, other value first", `"version":1,`, `"version":2,"version":1,`},
		{"unknown key twice", `"forwarded":null}`, `"same_as":null,"new":1,"new":1}`},
		{"unknown key first", `{"version":1`, `{"new":1,"version":1`},
		{"unknown key between", `"version":1,`, `"version":1,"new":1,`},
		{"unknown key with blanks in its value", `"forwarded":null}`, `"same_as":null,"new":[1, 2]}`},
		{"missing key at the beginning", `{"version":1,`, `{`},
		{"missing key between", `"kind":"sv",`, ``},
		{"missing key below", `"name":"stopd",`, ``},
		{"escaped slash", `2.2.2.2:968 `, `2.2.2.2:968\/ `},
		{"escaped letter", `"csh"`, `"\u0063sh"`},
		{"escaped key", `"version":1`, `"\u0076ersion":1`},
		{"letter case of a key", `"version":1`, `"Version":1`},
		{"long form of an escape", `"csh"`, `"c\u000ash"`},
		{"upper case escape", `"csh"`, `"c\u001Bsh"`},
		{"unneeded escape", `"csh"`, `"c\u00e9sh"`},
		{"half a surrogate pair", `"csh"`, `"c\ud800sh"`},
		{"control character", `"csh"`, "\"c\nsh\""},
		{"not UTF-8", `"csh"`, "\"c\x9bsh\""},
		{"not UTF-8 in an unknown value", `"forwarded":null}`, `"same_as":null,"new":"` + "\x9b" + `"}`},
		{"fraction", `"version":1,`, `"version":1.0,`},
		{"exponent", `"version":1,`, `"version":1e0,`},
		{"negative zero", `"ppid":0`, `"ppid":-0`},
		{"too large", `"ppid":0`, `"ppid":18446744073709551616`},
		{"negative id", `"uid":1000`, `"uid":-1`},
		{"string for a number", `"version":1,`, `"version":"1",`},
		{"number for a string", `"csh"`, `1`},
		{"null for a number", `"version":1,`, `"version":null,`},
		{"null for a list", `"channels":[]`, `"channels":null`},
		{"empty string for unknown", `"forwarded":null`, `"same_as":""`},
		{"object for a list", `"channels":[]`, `"channels":{}`},
		{"time without nanoseconds", `12:01:00.000000000Z`, `12:01:00Z`},
		{"time in another zone", `12:01:00.000000000Z`, `12:01:00.000000000+00:00`},
		{"time with a comma", `12:01:00.000000000Z`, `12:01:00,000000000Z`},
		{"no time", `2001-04-01T12:01:00.000000000Z`, `0001-01-01T00:00:00.000000000Z`},
		{"mapped address", `"requester":"3.3.3.3"`, `"requester":"::ffff:3.3.3.3"`},
		{"long form of an address", `"requester":"3.3.3.3"`, `"requester":"2001:db8:0::1"`},
		{"port 0", `"3.3.3.3:23"`, `"3.3.3.3:0"`},
		{"port with a zero before it", `"3.3.3.3:23"`, `"3.3.3.3:023"`},
		{"no address", `"3.3.3.3:23"`, `"host:23"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := tt.from
			if tt.name == "escaped slash" {
				from, tt.to = `"968 to 3.3.3.3:23"`, `"968 to\/3.3.3.3:23"`
			}
			changed := strings.Replace(b, from, tt.to, 1)
			if changed == b {
				t.Fatalf("the report has no %s", from)
			}
			if r, err := report.Decode([]byte(changed)); err == nil {
				t.Errorf("Decode took it, as %+v", r)
			} else if d := cmp.Diff(report.Report{}, r, same); d != "" {
				t.Errorf("the report is not zero beside an error:\n%s", d)
			}
		})
	}
	for _, bad := range []string{"", "{}", "[]", "null", "1", b[:len(b)-1], b[:len(b)/2]} {
		if _, err := report.Decode([]byte(bad)); err == nil {
			t.Errorf("Decode took %q", bad)
		}
	}
}

// A later version adds keys at the end of any object. A reader that does not know them keeps them.
func TestUnknownKeys(t *testing.T) {
	b := report.Encode(fullReport(func() string { return "x" }))
	const added = `,"zz_new":{"a":[1,2.50,"é\/",null],"b":{}},"zz_more":"}"`
	ends, all := 0, []byte{}
	for i, c := range b { // no string of the report has a brace
		if c == '}' {
			ends++
			one := append(bytes.Clone(b[:i]), added+string(b[i:])...)
			keeps(t, one)
			all = append(all, added...)
		}
		all = append(all, c)
	}
	keeps(t, all)
	if ends < 25 {
		t.Errorf("only %d objects were tried", ends)
	}
}

// An earlier version had not all keys: those at the end may be missing, and the bytes stay what they were.
func TestEarlierVersion(t *testing.T) {
	b := string(report.Encode(fullReport(func() string { return "x" })))
	for _, end := range []string{`,"reason":"x","same_as":"x","forwarded":{.*}$`, `,"netns":[0-9]+,"bytes":{[^}]*}}\],"users"`, `,"log":"x"}`} {
		re := regexp.MustCompile(end)
		if n := len(re.FindAllString(b, -1)); n != 1 {
			t.Fatalf("%s is there %d times", end, n)
		}
		keeps(t, []byte(re.ReplaceAllStringFunc(b, func(s string) string { return s[strings.LastIndex(s, "}"):] })))
	}
	if _, err := report.Decode([]byte(strings.Replace(b, `"version":1`, `"version":2`, 1))); err == nil {
		t.Error("a version that nobody knows is read")
	}
}

func keeps(t *testing.T, b []byte) {
	t.Helper()
	r, err := report.Decode(b)
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if d := cmp.Diff(string(b), string(report.Encode(r))); d != "" {
		t.Fatalf("(-read +written):\n%s", d)
	}
}

// hostile are names that a process may give itself.
var hostile = []string{
	"", " ", "a\nb", "a\r\nb", "\x00", "\x1b[2J\x1b]0;x\a", `"`, `\`, `\n`, `\x9b`, "</script>", "\u0080", "\u009b31m", "\u2028\u2029", "\u202eevil",
	"\ufeff", "\ufffd", "é", "e\u0301", "𝄞", "\x7f", "1 (a) S 0", "- END -\n- BEGIN -", "\"}],\"gaps\":[]",
}

func named(name string) report.Report {
	return report.Report{Version: 1, Kind: report.KindSV, Processes: []trace.Process{{Index: 1, Role: trace.Primary, Process: host.Process{PID: 1, Name: name, Args: []string{name, name}}}}}
}

func TestHostileStrings(t *testing.T) {
	for _, s := range hostile {
		r, err := report.Decode(report.Encode(named(s)))
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if d := cmp.Diff(named(s), r, same); d != "" {
			t.Errorf("%q (-written +read):\n%s", s, d)
		}
	}
	// What is not UTF-8 cannot be in JSON. It is escaped, not lost.
	seen := map[string]string{}
	for s, want := range map[string]string{"a\x9bb": `a\x9bb`, "\xff": `\xff`, "\xed\xa0\x80": `\xed\xa0\x80`, "\xc3": `\xc3`, "é\xc3": `é\xc3`, "\xfe": `\xfe`} {
		b := report.Encode(named(s))
		r, err := report.Decode(b)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if got := r.Processes[0].Name; got != want {
			t.Errorf("%q is read as %q, want %q", s, got, want)
		}
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%q and %q are written alike", s, other)
		}
		seen[string(b)] = s
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"b1", "b2", "b3"} {
		f.Add(thesisReport(f, name))
	}
	f.Add(report.Encode(fullReport(func() string { return "x" })))
	f.Add(report.Encode(report.Report{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := report.Decode(b)
		if err != nil {
			return
		}
		if d := cmp.Diff(string(b), string(report.Encode(r))); d != "" {
			t.Fatalf("(-read +written):\n%s", d)
		}
		if !json.Valid(b) || !utf8.Valid(b) {
			t.Fatal("it is not JSON")
		}
		checkText(t, report.Text(r))
	})
}

func FuzzString(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := report.Decode(report.Encode(named(s)))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Processes[0].Name; utf8.ValidString(s) && got != s {
			t.Fatalf("%q is read as %q", s, got)
		}
		checkText(t, report.Text(named(s)))
	})
}

func FuzzReport(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		b := report.Encode(randomReport(seed))
		r, err := report.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(b), string(report.Encode(r))); d != "" {
			t.Fatalf("(-read +written):\n%s", d)
		}
	})
}

// What `stopctl redeem -format json` printed can be passed on through other tools: the report's bytes come back.
func TestDecodeRedeemed(t *testing.T) {
	ts := []stop.Traceback{{Previous: stop.Ends{Remote: netip.MustParseAddrPort("1.1.1.1:616"), Local: netip.MustParseAddrPort("2.2.2.2:22")},
		SelectedBy: "inbound", Asked: true, Request: "616, 22 : SV_REC : 92847523456", Kind: "none", Error: "connection refused"}}
	full := report.Encode(fullReport(func() string { return "a<b>&\u2028\x00" }))
	for name, b := range map[string][]byte{
		"b1": thesisReport(t, "b1"), "b2": thesisReport(t, "b2"), "b3": thesisReport(t, "b3"), "full": full,
		"unknown keys": bytes.Replace(full, []byte(`}`), []byte(`,"zz_new":{"a":[1,2]}}`), 3),
	} {
		printed := report.EncodeRedeemed("t0ken", b, ts)
		var indented, escaped bytes.Buffer
		if err := json.Indent(&indented, printed, "", "\t"); err != nil {
			t.Fatal(err)
		}
		json.HTMLEscape(&escaped, printed)
		for form, text := range map[string][]byte{"as printed": printed, "indented": indented.Bytes(), "escaped": escaped.Bytes()} {
			r, again, err := report.DecodeRedeemed(text)
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			if d := cmp.Diff(string(b), string(again)); d != "" {
				t.Errorf("%s, %s: report (-want +got):\n%s", name, form, d)
			}
			want, err := report.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(report.Redeemed{Token: "t0ken", Report: want, Traceback: ts}, r, same); d != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, form, d)
			}
		}
	}
	twice := `{"token":"a","report":{},"report":{},"traceback":[]}`
	if _, b, err := report.DecodeRedeemed([]byte(twice)); err == nil || b != nil {
		t.Errorf("DecodeRedeemed took two reports for one")
	}
	for _, version := range []string{"0", "2", "null"} {
		if _, b, err := report.DecodeRedeemed([]byte(`{"token":"a","report":{"version":` + version + `},"traceback":[]}`)); err == nil || b != nil {
			t.Errorf("DecodeRedeemed read a report of version %s", version)
		}
	}
	// Of the keys that an earlier version had not, one in place of another is in no report of that token.
	r, _, err := report.DecodeRedeemed([]byte(`{"token":"a","report":{"version":1,"kind":"SV","reason":"none"},"traceback":[]}`))
	if err != nil || r.Report.Kind != "SV" || r.Report.Reason != "" {
		t.Errorf("%v, %+v", err, r)
	}
}

// What other hosts' administrators hand over is read as what it says, whatever that is: the report's bytes are a report's, and written
// anew it is the same.
func FuzzDecodeRedeemed(f *testing.F) {
	for _, name := range []string{"b1", "b2", "b3"} {
		f.Add(report.EncodeRedeemed("t0ken", thesisReport(f, name), []stop.Traceback{{SelectedBy: "bound"}, {Asked: true, Reply: "\x1b\n"}}))
	}
	f.Add([]byte(`{"token":"a","report":{"version":1,"zz_new":{"a":1}},"traceback":[{"zz_new":{"a":1}}],"zz_new":2}`))
	f.Add([]byte(`{"report":{"version":1,"host":null},"traceback":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, canonical, err := report.DecodeRedeemed(b)
		if err != nil {
			return
		}
		if _, err := report.Decode(canonical); err != nil {
			t.Fatalf("the report's bytes are none: %v\n%s", err, canonical)
		}
		again, bytesAgain, err := report.DecodeRedeemed(report.EncodeRedeemed(r.Token, canonical, r.Traceback))
		if d := cmp.Diff(r, again, same); d != "" || err != nil || string(bytesAgain) != string(canonical) {
			t.Fatalf("%v, (-read +read again):\n%s", err, d)
		}
		checkText(t, report.Text(r.Report))
		checkText(t, report.TracebackText(r.Traceback))
	})
}

func TestTraceback(t *testing.T) {
	ts := []stop.Traceback{{SelectedBy: "bound"}, {Asked: true, Reply: "\x1b\n"}}
	got, err := report.DecodeTraceback(report.EncodeTraceback(ts))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(ts, got, same); d != "" {
		t.Errorf("(-written +read):\n%s", d)
	}
	checkText(t, report.TracebackText(ts))
}

func BenchmarkEncode(b *testing.B) {
	r, err := report.Decode(thesisReport(b, "b1"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		report.Encode(r)
	}
}

func BenchmarkDecode(b *testing.B) {
	text := thesisReport(b, "b1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := report.Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
