package daemon

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	stop "github.com/stopd/stopd"
)

// newTLSKey writes a key and returns its path.
func newTLSKey(t testing.TB, path string) *tls.Certificate {
	t.Helper()
	text, err := GenerateTLSKey()
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := ReadTLSKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReadTLSKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tls.key")
	if _, err := ReadTLSKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	a, again := newTLSKey(t, path), func() string {
		c, err := ReadTLSKey(path)
		if err != nil {
			t.Fatal(err)
		}
		return stop.PinOf(c.Leaf)
	}()
	if pin := stop.PinOf(a.Leaf); pin != again || stop.CheckPin(pin) != nil {
		t.Errorf("one key has pins %q and %q", pin, again)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(whole)
	for name, text := range map[string][]byte{
		"nothing":       nil,
		"half":          whole[:len(whole)/2],
		"another type":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: block.Bytes}),
		"no PKCS #8":    pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: block.Bytes[1:]}),
		"a certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate[0]}),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := ReadTLSKey(path); err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "MIG") {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// signed is what an end of TLS has signed.
func signed(context string, hash int) []byte {
	return append([]byte(strings.Repeat(" ", 64)+context+"\x00"), make([]byte, hash)...)
}

func TestSignsHandshakesAlone(t *testing.T) {
	key := newTLSKey(t, filepath.Join(t.TempDir(), "tls.key"))
	k := &keeperPart{key: key}
	for c, contexts := range map[call][2]string{callSignServer: {serverContext, clientContext}, callSignClient: {clientContext, serverContext}} {
		for _, n := range []int{32, 48} {
			sig, err := k.serves(t.Context(), c, signed(contexts[0], n))
			if err != nil || key.Leaf.CheckSignature(key.Leaf.SignatureAlgorithm, signed(contexts[0], n), sig) != nil || len(sig) > largest[c].answered {
				t.Errorf("call %d: %x, %v", c, sig, err)
			}
		}
		good := signed(contexts[0], 32)
		for name, message := range map[string][]byte{
			"the other end's": signed(contexts[1], 32), "nothing": nil, "a digest": make([]byte, 32), "no hash": signed(contexts[0], 0),
			"a short hash": signed(contexts[0], 31), "a long hash": signed(contexts[0], 49), "63 blanks": good[1:], "65 blanks": append([]byte(" "), good...),
			"no NUL": bytes.Replace(good, []byte("Verify\x00"), []byte("Verify "), 1), "a certificate": key.Leaf.RawTBSCertificate,
		} {
			if sig, err := k.serves(t.Context(), c, message); err == nil {
				t.Errorf("call %d: %s is signed: %x", c, name, sig)
			}
		}
	}
	if _, err := (&keeperPart{}).serves(t.Context(), callSignServer, signed(serverContext, 32)); err == nil {
		t.Error("without a key")
	}
}

// What is signed is what TLS has signed at this end, and nothing that differs from it before the hash.
func FuzzSigned(f *testing.F) {
	f.Add(signed(serverContext, 32))
	f.Add(signed(serverContext, 48))
	f.Add(signed(clientContext, 32))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		if checkSigned(message, serverContext) != nil {
			return
		}
		if !bytes.HasPrefix(message, signed(serverContext, 0)) || len(message) != 130 && len(message) != 146 || checkSigned(message, clientContext) == nil {
			t.Errorf("%q is signed", message)
		}
	})
}

// The far key signs handshakes as a key of one's own does, as a server and as a client; not digests.
func TestFarKey(t *testing.T) {
	own := newTLSKey(t, filepath.Join(t.TempDir(), "tls.key"))
	k := &keeperPart{key: own}
	x, _ := linked(t, k.serves)
	server, err := certificate(t.Context(), x, callSignServer)
	if err != nil {
		t.Fatal(err)
	}
	client, err := certificate(t.Context(), x, callSignClient)
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(server, client *tls.Certificate) error {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		done := make(chan error, 1)
		go func() {
			done <- tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAnyClientCert}).Handshake()
			a.Close()
		}()
		c := tls.Client(b, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*client}})
		err := c.Handshake()
		if err == nil {
			c.Read(make([]byte, 1)) // what the server says of it
			b.Close()
		}
		return errors.Join(err, <-done)
	}
	if err := handshake(server, client); err != nil {
		t.Error(err)
	}
	if handshake(client, client) == nil || handshake(server, server) == nil {
		t.Error("one end's signature is the other's")
	}
	if _, err := server.PrivateKey.(crypto.Signer).Sign(nil, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("a digest is signed")
	}
	k.key = nil
	if c, err := certificate(t.Context(), x, callSignServer); c != nil || err != nil {
		t.Errorf("without a key: %v, %v", c, err)
	}
}
