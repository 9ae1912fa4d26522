package sshsig

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Signers says which keys may sign for whom.
type Signers []signer

// A signer is a line of the list.
type signer struct {
	principals string // patterns, with commas
	namespaces string // patterns; empty is any
	key        ssh.PublicKey
	after      time.Time // zero is always
	before     time.Time
}

// ParseSigners reads a list of allowed signers. A line that it does not understand is an error, and so is an option: one that
// were left out might have forbidden something. Authorities of certificates are left out: no key of theirs is allowed by it.
func ParseSigners(text []byte) (Signers, error) {
	var all Signers
	n := 0
	for line := range bytes.Lines(text) {
		n++
		l := strings.TrimSpace(string(line))
		if l == "" || l[0] == '#' {
			continue
		}
		s, authority, err := parseSigner(l)
		if err != nil {
			return nil, fmt.Errorf("parse allowed signers: line %d: %w", n, err)
		}
		if !authority {
			all = append(all, s)
		}
	}
	return all, nil
}

func parseSigner(line string) (s signer, authority bool, err error) {
	var rest string
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		s.principals, rest, _ = strings.Cut(quoted, `"`)
	} else if i := strings.IndexAny(line, " \t"); i > 0 {
		s.principals, rest = line[:i], line[i:]
	}
	var options []string
	if s.key, _, options, _, err = ssh.ParseAuthorizedKey([]byte(rest)); err != nil {
		return s, false, err
	}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "cert-authority":
			authority = true
		case "namespaces":
			if s.namespaces = value; value == "" {
				err = fmt.Errorf("option %q is empty", name)
			}
		case "valid-after":
			s.after, err = parseTime(value)
		case "valid-before":
			s.before, err = parseTime(value)
		default:
			err = fmt.Errorf("option %q is not known", o)
		}
		if err != nil {
			return s, false, err
		}
	}
	return s, authority, nil
}

// parseTime reads a date or time as ssh-keygen(1) has it: local, or with Z of UTC.
func parseTime(text string) (time.Time, error) {
	digits, utc := strings.CutSuffix(text, "Z")
	in := time.Local
	if utc {
		in = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			return time.ParseInLocation(layout, digits, in)
		}
	}
	return time.Time{}, fmt.Errorf("time %q", text)
}

// Allow tells why a key may not sign for somebody in a namespace at a time; nil where it may.
func (all Signers) Allow(principal, namespace string, key ssh.PublicKey, at time.Time) error {
	why := fmt.Errorf("key %s is not allowed to sign for %q", ssh.FingerprintSHA256(key), principal)
	for _, s := range all {
		if !bytes.Equal(s.key.Marshal(), key.Marshal()) || !matchList(s.principals, principal) {
			continue
		}
		switch {
		case s.namespaces != "" && !matchList(s.namespaces, namespace):
			why = fmt.Errorf("key %s is not allowed to sign in the namespace %q", ssh.FingerprintSHA256(key), namespace)
		case !s.after.IsZero() && at.Before(s.after), !s.before.IsZero() && at.After(s.before):
			why = fmt.Errorf("key %s was not allowed to sign at %s", ssh.FingerprintSHA256(key), at.UTC().Format(time.RFC3339))
		default:
			return nil
		}
	}
	return why
}

// matchList matches a text against patterns with commas between them (ssh_config(5), PATTERNS): one has to fit, and
// none that begins with an exclamation mark.
func matchList(patterns, text string) bool {
	fits := false
	for p := range strings.SplitSeq(patterns, ",") {
		p, not := strings.CutPrefix(p, "!")
		if !match(p, text) {
			continue
		}
		if not {
			return false
		}
		fits = true
	}
	return fits
}

// match matches a text against a pattern in which * is any octets and ? is one.
func match(pattern, text string) bool {
	star, back := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, back = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0: // the last star takes one octet more
			back++
			p, t = star+1, back
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
