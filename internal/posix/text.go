package posix

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text makes a string of bytes that a stranger may have chosen. Valid UTF-8 stays as it is, unless it holds
// \x itself; otherwise each byte that is none becomes \xNN, and backslashes are doubled. So the bytes can be
// told from the string: one without \x is as it was.
func Text(b []byte) string {
	if utf8.Valid(b) && !bytes.Contains(b, []byte(`\x`)) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&s, `\x%02x`, b[0])
		case r == '\\':
			s.WriteString(`\\`)
		default:
			s.Write(b[:n])
		}
		b = b[n:]
	}
	return s.String()
}

// Octets is the inverse of [Text].
func Octets(s string) []byte {
	if !strings.Contains(s, `\x`) {
		return []byte(s)
	}
	var b []byte
	for len(s) > 0 {
		switch {
		case strings.HasPrefix(s, `\\`):
			b, s = append(b, '\\'), s[2:]
		case strings.HasPrefix(s, `\x`):
			n, _ := strconv.ParseUint(s[2:4], 16, 8)
			b, s = append(b, byte(n)), s[4:]
		default:
			b, s = append(b, s[0]), s[1:]
		}
	}
	return b
}

// ParseStrings splits NUL terminated strings, as in cmdline and environ. The last may lack its NUL.
func ParseStrings(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	var ss []string
	for s := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
		ss = append(ss, Text(s))
	}
	return ss
}
