package posix

import (
	"bytes"
	"testing"
	"unicode/utf8"
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
