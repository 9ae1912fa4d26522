package translog

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

// A Witness cosigns checkpoints that continue the ones it saw before (c2sp.org/tlog-witness).
type Witness struct {
	URL string // its submission prefix; empty where it is only known by its key
	key *torchwood.CosignatureVerifier
}

// ParseWitness makes a witness of its submission prefix and its verifier key: Ed25519, type 4 of
// c2sp.org/signed-note, as a witness prints it.
func ParseWitness(prefix, key string) (Witness, error) {
	v, err := torchwood.NewCosignatureVerifier(key)
	if err != nil {
		return Witness{}, fmt.Errorf("parse witness key %q: %w", key, err)
	}
	if prefix != "" {
		u, err := url.Parse(prefix)
		if err != nil {
			return Witness{}, fmt.Errorf("parse witness URL: %w", err)
		}
		if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return Witness{}, fmt.Errorf("parse witness URL %q: it is not https://HOST/PATH", prefix)
		}
	}
	return Witness{strings.TrimRight(prefix, "/"), v}, nil
}

// Name is what the witness calls itself in its cosignatures.
func (w Witness) Name() string { return w.key.Name() }

// A Policy says whose signatures a checkpoint needs. It comes from elsewhere than the log that it is held against.
type Policy struct {
	Witnesses []Witness
	// Transport takes requests to witnesses there and back; nil is the system's network.
	Transport http.RoundTripper
	log       note.Verifier
	check     torchwood.Policy
}

// NewPolicy is the policy of one log, and of a quorum of witnesses. A quorum of 0 is all of them.
func NewPolicy(log note.Verifier, witnesses []Witness, quorum int) (Policy, error) {
	if err := CheckQuorum(witnesses, quorum); err != nil {
		return Policy{}, err
	}
	if quorum == 0 {
		quorum = len(witnesses)
	}
	var all []torchwood.Policy
	for _, w := range witnesses {
		all = append(all, torchwood.SingleVerifierPolicy(w.key))
	}
	check := torchwood.ThresholdPolicy(3, torchwood.OriginPolicy(log.Name()), torchwood.SingleVerifierPolicy(log),
		torchwood.ThresholdPolicy(quorum, all...))
	return Policy{Witnesses: witnesses, log: log, check: check}, nil
}

// CheckQuorum says why there is no quorum of these witnesses.
func CheckQuorum(witnesses []Witness, quorum int) error {
	seen := map[string]bool{}
	for _, w := range witnesses {
		// The key itself, behind name and hash: under two names it is one witness.
		_, key, _ := strings.Cut(strings.TrimPrefix(w.key.String(), w.Name()+"+"), "+")
		if seen[key] {
			return fmt.Errorf("the key of witness %s is there twice", w.Name())
		}
		seen[key] = true
	}
	if quorum < 0 || quorum > len(witnesses) {
		return fmt.Errorf("%d is not from 0 to %d, the number of witnesses", quorum, len(witnesses))
	}
	return nil
}

// ParsePolicy parses a policy of one log, as c2sp.org/tlog-policy has it.
func ParsePolicy(text []byte) (Policy, error) {
	check, err := parsePolicy(text)
	if err != nil {
		return Policy{}, err
	}
	p := Policy{check: check}
	member := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		switch {
		case len(f) >= 4 && f[0] == "group":
			for _, name := range f[3:] {
				if member[name] {
					return Policy{}, fmt.Errorf("parse policy: %q is a member twice", name) // one witness would count for two
				}
				member[name] = true
			}
		case len(f) >= 2 && f[0] == "log":
			if p.log != nil {
				return Policy{}, errors.New("parse policy: it is of several logs")
			}
			if p.log, err = note.NewVerifier(f[1]); err != nil {
				return Policy{}, fmt.Errorf("parse policy: log key: %w", err)
			}
		case len(f) >= 3 && f[0] == "witness":
			w, err := ParseWitness(strings.Join(f[3:], " "), f[2])
			if err != nil {
				return Policy{}, fmt.Errorf("parse policy: %w", err)
			}
			p.Witnesses = append(p.Witnesses, w)
		}
	}
	if p.log == nil {
		return Policy{}, errors.New("parse policy: it names no log")
	}
	if err := CheckQuorum(p.Witnesses, 0); err != nil {
		return Policy{}, fmt.Errorf("parse policy: %w", err)
	}
	return p, nil
}

// ParsePolicyOf parses the policy of one log, as [ParsePolicy] does, out of a text that may be of several.
// A log that the text does not name is [ErrUnknownLog].
func ParsePolicyOf(origin string, text []byte) (Policy, error) {
	var one []string
	known := false
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "log" {
			name, _, _ := strings.Cut(f[1], "+")
			if name != origin {
				// What is no key is refused, whoever's it is.
				if _, err := note.NewVerifier(f[1]); err != nil {
					return Policy{}, fmt.Errorf("parse policy: log key: %w", err)
				}
				continue
			}
			known = true
		}
		one = append(one, line)
	}
	if known {
		return ParsePolicy([]byte(strings.Join(one, "")))
	}
	if _, err := parsePolicy([]byte(strings.Join(one, ""))); err != nil {
		return Policy{}, err
	}
	return Policy{}, fmt.Errorf("parse policy: %w: %q", ErrUnknownLog, origin)
}

// parsePolicy parses a policy of whatever logs.
func parsePolicy(text []byte) (torchwood.Policy, error) {
	// The document allows no other blanks, and torchwood 0.9 panics on a line of them.
	other := func(r rune) bool {
		return r != ' ' && r != '\t' && r != '\n' && (unicode.IsSpace(r) || unicode.IsControl(r))
	}
	if i := bytes.IndexFunc(text, other); i >= 0 {
		return nil, fmt.Errorf("parse policy: the character at offset %d may not be there", i)
	}
	check, err := torchwood.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	return check, nil
}

// ErrUnknownLog says that a policy has no key of a log.
var ErrUnknownLog = errors.New("it does not name the log")

// Origin is what the log is called.
func (p Policy) Origin() string { return p.log.Name() }

// Witnessed reports whether the policy asks for anybody's word but the log's own.
func (p Policy) Witnessed() bool {
	return !p.met([]note.Signature{{Name: p.log.Name(), Hash: p.log.KeyHash()}})
}

// met reports whether signatures that were verified are what the policy asks for.
func (p Policy) met(sigs []note.Signature) bool {
	return p.check.Check(p.Origin(), sigs) == nil
}

// open verifies a checkpoint: the log has to have signed it, no signature of a known key may be wrong. The
// signatures of the note are those that were verified.
func (p Policy) open(b []byte) (Signed, []note.Signature, error) {
	n, err := note.Open(b, p.check)
	if err != nil {
		return Signed{}, nil, fmt.Errorf("%w: %w", ErrAltered, err)
	}
	c, err := torchwood.ParseCheckpoint(n.Text)
	switch {
	case err != nil:
		return Signed{}, nil, fmt.Errorf("%w: %w", ErrAltered, err)
	case c.Origin != p.Origin():
		return Signed{}, nil, fmt.Errorf("%w: it is of the log %q", ErrAltered, c.Origin)
	case !slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == p.log.Name() && s.Hash == p.log.KeyHash() }):
		return Signed{}, nil, fmt.Errorf("%w: the log did not sign it", ErrAltered)
	}
	return Signed{c, n.Text, slices.Clone(b)}, n.Sigs, nil
}
