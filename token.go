package stop

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
)

// A Token stands for a saved report: it is the SHA-256 of the report's exact bytes. A decoy is a Token
// too, and nobody without the store of the host that sent it can tell the two apart.
type Token [sha256.Size]byte

// RFC 4648 base32 in lower case and without padding, after a letter: ident clients cut user names at 63
// octets, take letters and digits alone, or want a letter among them.
var tokenDigits = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

const (
	tokenLetter = 's'
	tokenLen    = 53 // the letter and 52 digits of 5 bits for 256
)

// TokenOf returns the token of a report's exact bytes.
func TokenOf(report []byte) Token { return sha256.Sum256(report) }

// String returns the token as it is on the wire, 53 octets: "s" and 52 digits of a-z and 2-7.
func (t Token) String() string {
	return string(tokenLetter) + tokenDigits.EncodeToString(t[:])
}

// ParseToken parses a token in the one form that [Token.String] gives it. On failure the Token is zero and
// the error is a [*SyntaxError].
func ParseToken(s string) (Token, error) {
	t, err := parseToken(s)
	if err != nil {
		return Token{}, syntaxError("token", s, tokenLen, err)
	}
	return t, nil
}

func parseToken(s string) (t Token, err error) {
	if len(s) != tokenLen {
		return t, errors.New("not 53 octets")
	}
	if s[0] != tokenLetter {
		return t, errors.New("does not begin with s")
	}
	b, err := tokenDigits.DecodeString(s[1:])
	if err != nil || len(b) != len(t) {
		return t, errors.New("not 52 lower-case base32 digits")
	}
	// The last digit holds one bit of the hash and four that must be zero; the decoder ignores those.
	if t = Token(b); t.String() != s {
		return Token{}, errors.New("bits set after the last of the hash")
	}
	return t, nil
}
