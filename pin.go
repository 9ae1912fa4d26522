package stop

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// PinOf returns the pin of a certificate's key: the SHA-256 of its SubjectPublicKeyInfo, in base64, as RFC 7469
// section 2.4 has it. A pin names a key and not a certificate, of which neither name nor dates count: whoever has the
// key can write any (RFC 7671 section 5.1 says the same of DANE-EE).
func PinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// CheckPin says why text is no pin; nil where it is one, as [PinOf] writes it.
func CheckPin(pin string) error {
	b, err := base64.StdEncoding.Strict().DecodeString(pin)
	if err != nil || len(b) != sha256.Size || base64.StdEncoding.EncodeToString(b) != pin {
		return fmt.Errorf("%q is not the base64 of a SHA-256, 44 characters", pin)
	}
	return nil
}

// ErrPin says that a host asked by TLS has another key than the pinned one.
var ErrPin = errors.New("its key is not the pinned one")

// clientTLS asks for TLS 1.3, and for the pinned key alone. That the host has that key the handshake proves.
func (c *Client) clientTLS() *tls.Config {
	t := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // of names and authorities, of which there are none: VerifyConnection holds the key
		VerifyConnection: func(s tls.ConnectionState) error {
			if pin := PinOf(s.PeerCertificates[0]); pin != c.Pin {
				return fmt.Errorf("%w: its pin is %s", ErrPin, pin)
			}
			return nil
		},
	}
	if c.Certificate != nil {
		// Not by Certificates: those are shown only to who names an authority or an algorithm that fits.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate, nil }
	}
	return t
}
