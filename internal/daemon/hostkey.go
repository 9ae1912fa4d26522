package daemon

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
)

// TLSKeyPath gives where the TLS key of the host with a store is: beside the key of its log.
func TLSKeyPath(store string) (string, error) {
	path, err := evidence.LogKeyPath(store)
	if err != nil {
		return "", fmt.Errorf("find TLS key: %w", err)
	}
	return filepath.Join(filepath.Dir(path), "tls.key"), nil
}

const pemKey = "PRIVATE KEY"

// GenerateTLSKey makes a host's TLS key: P-256, in PEM of PKCS #8, as openssl genpkey writes it.
func GenerateTLSKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make TLS key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make TLS key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// ReadTLSKey reads a file of [GenerateTLSKey] and makes a certificate for the key, which says nothing but the key.
func ReadTLSKey(path string) (*tls.Certificate, error) {
	f, err := translog.OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read TLS key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read TLS key: %w", err)
	}
	key, err := parseTLSKey(text)
	if err != nil {
		return nil, fmt.Errorf("read TLS key %s: %w", path, err)
	}
	return certify(key)
}

func parseTLSKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("no private key of PKCS #8 in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("no private key of PKCS #8") // the cause might quote it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("it is not of P-256")
	}
	return key, nil
}

// certify makes the certificate of a key. Who pins keys looks at nothing else in it, so it has no name, and no end
// (RFC 5280 section 4.1.2.5).
func certify(key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stopd"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// What TLS 1.3 has signed by each end (RFC 8446 section 4.4.3).
const (
	serverContext = "TLS 1.3, server CertificateVerify"
	clientContext = "TLS 1.3, client CertificateVerify"
)

// checkSigned says why a message is not what one end of TLS 1.3 signs: 64 blanks, its context, NUL, and the hash of the
// handshake, which is of SHA-256 or SHA-384.
func checkSigned(message []byte, context string) error {
	const blanks = "                                                                "
	head := blanks + context + "\x00"
	if n := len(message) - len(head); n != 32 && n != 48 || string(message[:len(head)]) != head {
		return errors.New("sign: this is no handshake")
	}
	return nil
}

// signHandshake signs a message of a handshake, and nothing else.
func signHandshake(c *tls.Certificate, message []byte, context string) ([]byte, error) {
	if c == nil {
		return nil, errors.New("sign: this host has no TLS key")
	}
	if err := checkSigned(message, context); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, c.PrivateKey.(*ecdsa.PrivateKey), sum[:])
}

// signTimeout is how long a signature may take.
const signTimeout = 5 * time.Second

// A farKey is the host's key, which the keeper has, as another process uses it by one call.
type farKey struct {
	link   *link
	call   call
	public crypto.PublicKey
}

// certificate asks the keeper for the host's certificate, whose key signs by a call; nil where there is none.
func certificate(ctx context.Context, l *link, c call) (*tls.Certificate, error) {
	der, err := l.call(ctx, callCertificate, nil)
	if err != nil || len(der) == 0 {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: farKey{l, c, leaf.PublicKey}, Leaf: leaf}, nil
}

// Public is the public key.
func (k farKey) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. The keeper signs what it can read, so no digests.
func (farKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("sign: digests are not signed")
}

// SignMessage implements crypto.MessageSigner.
func (k farKey) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("sign: with %v", opts.HashFunc())
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
	defer cancel()
	return k.link.call(ctx, k.call, message)
}
