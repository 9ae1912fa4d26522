package stop

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A SyntaxError says why a line or a token could not be parsed.
type SyntaxError struct {
	What   string // "request", "reply" or "token"
	Text   string // what was parsed, as it came, cut at the bound of its kind; not escaped
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("parse %s %q: %s", e.What, e.Text, e.Reason)
}

func syntaxError(what, text string, bound int, reason error) error {
	return &SyntaxError{What: what, Text: text[:min(len(text), bound)], Reason: reason.Error()}
}

// Blanks and tabs may stand anywhere but within a token (RFC 1413, Notes on Syntax, 1).
const blanks = " \t"

// cut splits s at its first sep and trims the blanks around what stands before it.
func cut(s, sep string) (token, rest string, found bool) {
	token, rest, found = strings.Cut(s, sep)
	return strings.Trim(token, blanks), rest, found
}

// upper is for words of the protocol. It leaves all but ASCII alone: strings.ToUpper and EqualFold make an
// S of U+017F, and "\u017fV" is no type.
func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// maxPortDigits bounds ports as written. RFC 1413 has five digits; ten, all that 32 bits can fill, are
// read so that a port out of range can be told from a line that is no request.
const maxPortDigits = 10

// parsePorts parses a port pair, up to the colon after it.
func parsePorts(s string) (local, remote uint64, err error) {
	first, second, found := cut(s, ",")
	if !found {
		return 0, 0, fmt.Errorf("no comma between two ports")
	}
	if local, err = parsePort(first); err != nil {
		return 0, 0, fmt.Errorf("first port: %w", err)
	}
	if remote, err = parsePort(strings.Trim(second, blanks)); err != nil {
		return 0, 0, fmt.Errorf("second port: %w", err)
	}
	return local, remote, nil
}

func parsePort(s string) (uint64, error) {
	if len(s) > maxPortDigits {
		return 0, fmt.Errorf("more than %d digits", maxPortDigits)
	}
	return parseDecimal(s)
}

// parseDecimal accepts the one way to write a number: digits alone, no sign, no leading zero.
func parseDecimal(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("not a decimal number below 2^64 without sign or leading zero")
	}
	return n, nil
}

// Printable escapes a stranger's text for logs, terminals and the stored verbatim reply: printable ASCII
// and UTF-8 stay, a backslash becomes two, and every other byte becomes \xNN with lower-case digits. No
// two texts have the same escaped form.
func Printable[T ~string | ~[]byte](text T) string {
	const hex = "0123456789abcdef"
	s := string(text)
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, c := range []byte(s[:size]) {
				b.Write([]byte{'\\', 'x', hex[c>>4], hex[c&15]})
			}
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}
