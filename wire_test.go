package stop

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func uintString(n uint64) string { return strconv.FormatUint(n, 10) }

func TestType(t *testing.T) {
	type properties struct {
		Word            string
		Recursive, Full bool
	}
	want := map[Type]properties{
		ID:    {"ID", false, false},
		IDRec: {"ID_REC", true, false},
		SV:    {"SV", false, true},
		SVRec: {"SV_REC", true, true},
	}
	got := map[Type]properties{}
	for typ := range want {
		got[typ] = properties{typ.String(), typ.Recursive(), typ.Full()}
		for _, word := range []string{typ.String(), strings.ToLower(typ.String())} {
			if parsed, err := ParseType(word); err != nil || parsed != typ {
				t.Errorf("ParseType(%q) = %v, %v", word, parsed, err)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("types differ (-want +got):\n%s", diff)
	}
	for _, word := range []string{"", "S", " SV", "SV ", "SV_", "SV_RECS", "ID-REC", "\u017fV", "0"} {
		if parsed, err := ParseType(word); err == nil || parsed != 0 {
			t.Errorf("ParseType(%q) = %v, %v, want an error", word, parsed, err)
		}
	}
	if got := Type(4).String(); got != "Type(4)" {
		t.Errorf("Type(4) is %q", got)
	}
}

func TestReplyLine(t *testing.T) {
	r := Reply{Local: 968, Remote: 23, System: "OTHER", UserID: TokenOf(nil).String()}
	want := "968 , 23 : USERID : OTHER : s4oymiquy7qobjgx36tejs35zeqt24qpemsnzgtfeswmrw6csxbkq\r\n"
	if got := string(r.Line()); got != want {
		t.Errorf("line is %q, want %q", got, want)
	}
}

// A line over the bound is named by its bound, not by what is in it.
func TestLongLine(t *testing.T) {
	_, err := ParseRequest([]byte(strings.Repeat("\x00", 1<<20)))
	if err == nil || !strings.HasSuffix(err.Error(), ": longer than 1000 octets") {
		t.Errorf("ParseRequest: %.80v", err)
	}
	_, err = ParseReply([]byte(strings.Repeat("\x00", 1<<20)), Request{})
	if err == nil || !strings.HasSuffix(err.Error(), ": longer than 1200 octets") {
		t.Errorf("ParseReply: %.80v", err)
	}
}

func TestPrintable(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"968 , 23 : USERID : UNIX : alice", "968 , 23 : USERID : UNIX : alice"},
		{"Zoë 張", "Zoë 張"},
		{`a\b`, `a\\b`},
		{"\x00\t\r\n\x1b\x7f", `\x00\x09\x0d\x0a\x1b\x7f`},
		{"\xff\xc3", `\xff\xc3`},
		{"\u0085", `\xc2\x85`},              // a C1 control
		{"\u00a0", `\xc2\xa0`},              // no-break space
		{"a\u202eb", `a\xe2\x80\xaeb`},      // right-to-left override
		{"\u2028", `\xe2\x80\xa8`},          // line separator
		{"\ufffd", "\ufffd"},                // the replacement character itself, well formed
		{"\ufeffa", `\xef\xbb\xbfa`},        // byte order mark
		{"\xed\xa0\x80", `\xed\xa0\x80`},    // a surrogate
		{`\x1b` + "\x1b", `\\x1b` + `\x1b`}, // an escape that the stranger wrote
	} {
		if got := Printable(test.text); got != test.want {
			t.Errorf("Printable(%q) = %s, want %s", test.text, got, test.want)
		}
		if got := Printable([]byte(test.text)); got != test.want {
			t.Errorf("Printable of the octets of %q = %s, want %s", test.text, got, test.want)
		}
	}
}

// FuzzPrintable holds that the escaped form is printable and gives back the text it was made from.
func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"", "alice", `\`, `\x41`, "\xff\x00é", "\u202e"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		escaped := Printable(text)
		if !utf8.ValidString(escaped) {
			t.Fatalf("%q is not UTF-8", escaped)
		}
		for _, r := range escaped {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", escaped, r)
			}
		}
		var b []byte
		for s := escaped; s != ""; {
			switch {
			case strings.HasPrefix(s, `\\`):
				b, s = append(b, '\\'), s[2:]
			case strings.HasPrefix(s, `\x`):
				c, err := strconv.ParseUint(s[2:4], 16, 8)
				if err != nil {
					t.Fatal(err)
				}
				b, s = append(b, byte(c)), s[4:]
			default:
				b, s = append(b, s[0]), s[1:]
			}
		}
		if string(b) != text {
			t.Errorf("%q is escaped as %q, which is %q", text, escaped, b)
		}
	})
}

// FuzzParseRequest holds that an error comes with the zero Request, and that a parsed Request is written
// as a line that gives the same Request and, written again, the same line.
func FuzzParseRequest(f *testing.F) {
	for _, v := range readVectors(f).Requests {
		f.Add(v.octets(f))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRequest(line)
		if err != nil {
			if r != (Request{}) {
				t.Errorf("Request %+v with error %v", r, err)
			}
			return
		}
		if r.SID != 0 && !r.Type.Recursive() || r.For.Zone() != "" || r.For.Is4In6() {
			t.Errorf("Request %+v is not in the form it promises", r)
		}
		again, err := ParseRequest([]byte(r.String()))
		if err != nil || again != r || again.String() != r.String() {
			t.Errorf("%q gives %+v, written as %q, which gives %+v, %v", line, r, r, again, err)
		}
	})
}

// FuzzParseReply holds the same for replies, and that the ports are the asked ones.
func FuzzParseReply(f *testing.F) {
	for _, v := range readVectors(f).Replies {
		f.Add(v.octets(f), []byte(v.Asked))
	}
	f.Fuzz(func(t *testing.T, line, asked []byte) {
		q, err := ParseRequest(asked)
		if err != nil {
			q = Request{Local: 968, Remote: 23}
		}
		r, err := ParseReply(line, q)
		if err != nil {
			if r != (Reply{}) {
				t.Errorf("Reply %+v with error %v", r, err)
			}
			return
		}
		if (r.Error == "") != (r.UserID != "") || len(r.UserID) > maxUserID {
			t.Errorf("Reply %+v is neither one user nor one error", r)
		}
		if (r.Local != q.Local || r.Remote != q.Remote) && (r.Local|r.Remote != 0 || r.Error == "") {
			t.Errorf("Reply %+v is not about %+v", r, q)
		}
		again, err := ParseReply([]byte(r.String()), q)
		if err != nil || again != r || again.String() != r.String() {
			t.Errorf("%q gives %+v, written as %q, which gives %+v, %v", line, r, r, again, err)
		}
	})
}

// FuzzParseToken holds that exactly one text gives a Token, and that it is fit for every known client.
func FuzzParseToken(f *testing.F) {
	for _, v := range readVectors(f).Tokens {
		f.Add(v.Token)
	}
	f.Fuzz(func(t *testing.T, text string) {
		of := TokenOf([]byte(text))
		if again, err := ParseToken(of.String()); err != nil || again != of {
			t.Errorf("token %v parses as %v, %v", of, again, err)
		}
		token, err := ParseToken(text)
		if err != nil {
			if token != (Token{}) {
				t.Errorf("Token %v with error %v", token, err)
			}
			return
		}
		if token.String() != text {
			t.Errorf("%q gives a token written %q", text, token)
		}
	})
}

// Lines that a Request can be made to have but that no host would read.
func TestUnparsableRequests(t *testing.T) {
	for _, r := range []Request{
		{Local: 968, Remote: 23, Type: 9},
		{Local: 10_000_000_000, Remote: 23},
		{Local: 968, Remote: 23, For: netip.MustParseAddr("fe80::1%lo")},
		{Local: 968, Remote: 23, For: netip.MustParseAddr("::ffff:192.0.2.7")},
	} {
		if got, err := ParseRequest([]byte(r.String())); err == nil {
			t.Errorf("%q parses as %+v", r, got)
		}
	}
}
