// Package sshsig reads the signatures that `ssh-keygen -Y sign` makes (PROTOCOL.sshsig of OpenSSH) and the lists of those
// who may sign (ssh-keygen(1), ALLOWED SIGNERS). Signatures are checked by golang.org/x/crypto/ssh.
package sshsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A Signature is one of a message that it does not hold.
type Signature struct {
	Key       ssh.PublicKey
	Namespace string
	reserved  string
	hash      string
	signature ssh.Signature
}

const (
	armorBegin = "-----BEGIN SSH SIGNATURE-----\n"
	armorEnd   = "-----END SSH SIGNATURE-----"
	preamble   = "SSHSIG"
)

// algorithms are those of signatures that are good for something: RSA with SHA-1, DSA and certificates are not.
var algorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}

// Parse reads an armored signature.
func Parse(armored string) (Signature, error) {
	s, err := parse(armored)
	if err != nil {
		return Signature{}, fmt.Errorf("parse SSH signature: %w", err)
	}
	return s, nil
}

func parse(armored string) (Signature, error) {
	body, ok := strings.CutPrefix(strings.ReplaceAll(armored, "\r\n", "\n"), armorBegin)
	if body, _ = strings.CutSuffix(body, "\n"); !ok || !strings.HasSuffix(body, "\n"+armorEnd) {
		return Signature{}, errors.New("it does not begin and end as one")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(strings.TrimSuffix(body, armorEnd), "\n", ""))
	if err != nil {
		return Signature{}, err
	}
	blob, ok = bytes.CutPrefix(blob, []byte(preamble))
	if !ok {
		return Signature{}, fmt.Errorf("it lacks %q", preamble)
	}
	var wire struct {
		Version                   uint32
		Key                       []byte
		Namespace, Reserved, Hash string
		Signature                 []byte
	}
	if err := ssh.Unmarshal(blob, &wire); err != nil {
		return Signature{}, err
	}
	if wire.Version != 1 {
		return Signature{}, fmt.Errorf("version %d is not known", wire.Version)
	}
	s := Signature{Namespace: wire.Namespace, reserved: wire.Reserved, hash: wire.Hash}
	if s.Key, err = ssh.ParsePublicKey(wire.Key); err != nil {
		return Signature{}, err
	}
	if err := ssh.Unmarshal(wire.Signature, &s.signature); err != nil {
		return Signature{}, err
	}
	if !slices.Contains(algorithms, s.signature.Format) {
		return Signature{}, fmt.Errorf("algorithm %q", s.signature.Format)
	}
	return s, nil
}

// Check checks that the signature is of this message and for this namespace. Whose key it is does not matter.
func (s Signature) Check(message []byte, namespace string) error {
	if s.Namespace != namespace {
		return fmt.Errorf("check SSH signature: its namespace is %q, not %q", s.Namespace, namespace)
	}
	var sum []byte
	switch s.hash {
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	default:
		return fmt.Errorf("check SSH signature: hash %q is not known", s.hash)
	}
	signed := append([]byte(preamble), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{s.Namespace, s.reserved, s.hash, sum})...)
	if err := s.Key.Verify(signed, &s.signature); err != nil {
		return fmt.Errorf("check SSH signature: %w", err)
	}
	return nil
}

// Fingerprint names the key as ssh-keygen -l does.
func (s Signature) Fingerprint() string { return s.Key.Type() + " " + ssh.FingerprintSHA256(s.Key) }
