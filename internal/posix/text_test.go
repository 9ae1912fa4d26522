package posix

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "",
		"bash":             "bash",
		"ä\n\t\x00":        "ä\n\t\x00",
		`a\b\n`:            `a\b\n`,
		"\xff":             `\xff`,
		`\xff`:             `\\xff`,
		"a\\\xff":          `a\\\xff`,
		"\xc3":             `\xc3`,
		"ä\xc3\xc3\xa4":    `ä\xc3ä`,
		"\xed\xa0\x80":     `\xed\xa0\x80`, // a surrogate
		"\xef\xbf\xbd":     "\xef\xbf\xbd", // the replacement character itself
		"\xef\xbf\xbd\x80": "\xef\xbf\xbd" + `\x80`,
	} {
		if got := Text([]byte(in)); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", `\`, `\x`, `\xff`, "\xff", `\\xff`, "\\\xff", "ä\xc3"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := Text(b)
		if !utf8.ValidString(s) || len(s) > 4*len(b) {
			t.Errorf("Text(%q) = %q: %d octets, valid: %t", b, s, len(s), utf8.ValidString(s))
		}
		if got := Octets(s); !bytes.Equal(got, b) {
			t.Errorf("Text(%q) = %q, of %q", b, s, got)
		}
	})
}

func TestParseStrings(t *testing.T) {
	for in, want := range map[string][]string{
		"":              nil,
		"\x00":          {""},
		"a\x00":         {"a"},
		"a":             {"a"},
		"a\x00b c\x00":  {"a", "b c"},
		"a\x00\x00b":    {"a", "", "b"},
		"a\x00\x00":     {"a", ""},
		"\xff\x00\\x\n": {`\xff`, "\\\\x\n"},
	} {
		if diff := cmp.Diff(want, ParseStrings([]byte(in))); diff != "" {
			t.Errorf("ParseStrings(%q) (-want +got):\n%s", in, diff)
		}
	}
}

func FuzzParseStrings(f *testing.F) {
	f.Add([]byte("a\x00b\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw [][]byte
		for _, s := range ParseStrings(b) {
			raw = append(raw, Octets(s))
		}
		if got := bytes.Join(raw, []byte{0}); !bytes.Equal(got, bytes.TrimSuffix(b, []byte{0})) {
			t.Errorf("%q gave %q", b, got)
		}
	})
}
