package translog

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// A Key signs a log. Its name is the log's origin.
type Key struct {
	signer   note.Signer
	verifier note.Verifier
	public   string
}

// GenerateKey makes a log's key: a file of two lines, the private key and the public one (c2sp.org/signed-note).
// Its name is the host's and eight random digits: a log that is begun anew on a host is another log to witnesses.
func GenerateKey(host string) ([]byte, error) {
	b := make([]byte, 4)
	rand.Read(b) // never fails
	name := strings.Map(func(r rune) rune {
		if r == '+' || unicode.IsSpace(r) || unicode.IsControl(r) {
			return '-'
		}
		return r
	}, host) + "/stopd/" + hex.EncodeToString(b)
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, fmt.Errorf("make log key: %w", err)
	}
	return fmt.Appendf(nil, "%s\n%s\n", private, public), nil
}

// ParseKey parses what [GenerateKey] made.
func ParseKey(text []byte) (Key, error) {
	private, rest, _ := strings.Cut(string(text), "\n")
	public, _, _ := strings.Cut(rest, "\n")
	signer, err := note.NewSigner(private)
	if err != nil {
		return Key{}, errors.New("parse log key: the first line is no private key") // the cause might quote it
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return Key{}, fmt.Errorf("parse log key: the second line: %w", err)
	}
	if signer.Name() != verifier.Name() || signer.KeyHash() != verifier.KeyHash() {
		return Key{}, errors.New("parse log key: its lines are not one key")
	}
	return Key{signer, verifier, public}, nil
}

// ReadKey reads a file of [GenerateKey].
func ReadKey(path string) (Key, error) {
	b, err := readBounded(path, 4096)
	if errors.Is(err, os.ErrNotExist) {
		return Key{}, fmt.Errorf("read log key: %w (stopctl init writes one)", err)
	}
	if err != nil {
		return Key{}, fmt.Errorf("read log key: %w", err)
	}
	k, err := ParseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// Origin is what the log is called in checkpoints.
func (k Key) Origin() string { return k.verifier.Name() }

// Public is the key that others check checkpoints with, as c2sp.org/signed-note writes it.
func (k Key) Public() string { return k.public }

// Verifier checks the log's signatures.
func (k Key) Verifier() note.Verifier { return k.verifier }

// policy asks for no more than the log's own signature.
func (k Key) policy() Policy {
	p, _ := NewPolicy(k.verifier, nil, 0) // it fails for a quorum
	return p
}
