package stop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// certificateOf makes a certificate that is good until a time, and its pin.
func certificateOf(t *testing.T, key any, public any, until time.Time) (tls.Certificate, string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, PinOf(leaf)
}

func newCertificate(t *testing.T, until time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certificateOf(t, key, key.Public(), until)
}

// A tap keeps what came on all connections with a host, each for itself.
type tap struct {
	mu   sync.Mutex
	said []*bytes.Buffer
}

// tapped is one of its connections.
type tapped struct {
	net.Conn
	tap  *tap
	said *bytes.Buffer
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.said.Write(b[:n])
	return n, err
}

// plainly says what came otherwise than in records of TLS.
func (p *tap) plainly() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.said {
		if s := b.Bytes(); len(s) > 0 && (s[0] != 0x16 || bytes.Contains(s, []byte("SV_REC"))) {
			return string(s)
		}
	}
	return ""
}

// tapTo has each connection served, and keeps what comes.
func tapTo(t *testing.T, serves func(net.Conn)) (*tap, netip.AddrPort) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{}
	var under sync.WaitGroup
	t.Cleanup(func() { l.Close(); under.Wait() })
	under.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := &bytes.Buffer{}
			p.mu.Lock()
			p.said = append(p.said, b)
			p.mu.Unlock()
			under.Go(func() {
				defer c.Close()
				serves(tapped{c, p, b})
			})
		}
	})
	return p, l.Addr().(*net.TCPAddr).AddrPort()
}

// A host with a pin is asked by TLS, with that key, and never otherwise, whatever fails.
func TestAskPinned(t *testing.T) {
	later := time.Now().Add(time.Hour)
	its, pin := newCertificate(t, later)
	other, _ := newCertificate(t, later)
	old, oldPin := newCertificate(t, time.Now().Add(-time.Hour))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, edwardsPin := certificateOf(t, private, public, later)
	ours, _ := newCertificate(t, later)
	reply := "968 , 23 : USERID : OTHER : " + aToken + "\r\n"
	answers := func(cfg *tls.Config, reply string) func(net.Conn) {
		return func(c net.Conn) {
			secure := tls.Server(c, cfg)
			if _, err := bufio.NewReader(secure).ReadString('\n'); err == nil {
				io.WriteString(secure, reply)
				secure.Close()
			}
		}
	}
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	for name, tt := range map[string]struct {
		serves func(net.Conn)
		pin    string
		want   string // the cause of the error; empty where it is answered
		conns  int
	}{
		"its key":              {answers(with(its), reply), pin, "", 1},
		"an expired one":       {answers(with(old), reply), oldPin, "", 1}, // a key does not expire
		"a key of Ed25519":     {answers(with(edwards), reply), edwardsPin, "", 1},
		"another's key":        {answers(with(other), reply), pin, "begin TLS: its key is not the pinned one: its pin is ", 1},
		"its certificate only": {answers(with(tls.Certificate{Certificate: its.Certificate, PrivateKey: other.PrivateKey}), reply), pin, "begin TLS: ", 1},
		"its key beside another's": {answers(with(tls.Certificate{Certificate: append(other.Certificate[:1:1], its.Certificate...), PrivateKey: other.PrivateKey}), reply),
			pin, "begin TLS: its key is not the pinned one: its pin is ", 1},
		"TLS 1.2":        {answers(&tls.Config{Certificates: []tls.Certificate{its}, MaxVersion: tls.VersionTLS12}, reply), pin, "begin TLS: remote error: tls: protocol version not supported", 1},
		"plain":          {func(c net.Conn) { io.WriteString(c, reply); io.Copy(io.Discard, c) }, pin, "begin TLS: tls: first record does not look like a TLS handshake", 1},
		"an alert":       {func(c net.Conn) { c.Write([]byte{0x15, 3, 3, 0, 2, 2, 40}); io.Copy(io.Discard, c) }, pin, "begin TLS: remote error: tls: handshake failure", 1},
		"an end":         {func(c net.Conn) { c.Read(make([]byte, 4096)) }, pin, "begin TLS: ", 1},
		"no reply":       {answers(with(its), ""), pin, "closed without a reply", 2}, // by TLS once more
		"INVALID-PORT":   {answers(with(its), "968 , 23 : ERROR : INVALID-PORT\r\n"), pin, "", 2},
		"a client's key": {answers(&tls.Config{Certificates: []tls.Certificate{its}, ClientAuth: tls.RequireAnyClientCert}, reply), pin, "", 1},
		"a reply that was cut": {func(c net.Conn) {
			secure := tls.Server(c, with(its))
			bufio.NewReader(secure).ReadString('\n')
			io.WriteString(secure, "968 , 23 : USERID : UNIX : al")
		}, pin, "read reply: unexpected EOF", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, to := tapTo(t, tt.serves)
			got, err := (&Client{Pin: tt.pin, Certificate: &ours}).Ask(t.Context(), to, svRec)
			switch {
			case tt.want == "" && (err != nil || got.Kind == 0):
				t.Errorf("%+v, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || got != (Answer{})):
				t.Errorf("%+v, %v", got, err)
			}
			if (name == "another's key") != errors.Is(err, ErrPin) && name != "its key beside another's" {
				t.Errorf("the error is %v", err)
			}
			if said := p.plainly(); said != "" {
				t.Errorf("in plain it was told %q", said)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if len(p.said) != tt.conns {
				t.Errorf("%d connections", len(p.said))
			}
		})
	}
}

// On behalf of others is asked from a port below 1024, another where one is taken; by TLS from any.
func TestAskOnBehalfFromLowPort(t *testing.T) {
	for name, tt := range map[string]struct {
		asks  Request
		pin   string
		fails error // of the first dials
		times int
		dials int
		low   bool
		want  error
	}{
		"for itself":         {asks: svRec, dials: 1},
		"on behalf":          {asks: svRecOnBehalf, dials: 1, low: true},
		"ports in use":       {asks: svRecOnBehalf, fails: syscall.EADDRINUSE, times: 9, dials: 10, low: true},
		"a connection ended": {asks: svRecOnBehalf, fails: syscall.EADDRNOTAVAIL, times: 3, dials: 4, low: true},
		"no port":            {asks: svRecOnBehalf, fails: syscall.EADDRINUSE, times: 5000, dials: lowPorts, low: true, want: syscall.EADDRINUSE},
		"without privilege":  {asks: svRecOnBehalf, fails: syscall.EACCES, times: 5000, dials: 1, low: true, want: syscall.EACCES},
		"by TLS":             {asks: svRecOnBehalf, pin: "any", dials: 1, fails: io.EOF, times: 1, want: io.EOF},
	} {
		ports := map[uint16]bool{}
		dials := 0
		c := &Client{Pin: tt.pin, Dial: func(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
			dials++
			ports[local.Port()] = true
			if low := local.Port() >= 512 && local.Port() < 1024; low != tt.low || !tt.low && local.Port() != 0 {
				t.Errorf("%s: from port %d", name, local.Port())
			}
			if dials <= tt.times {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("bind", tt.fails)}
			}
			ours, theirs := net.Pipe()
			go func() {
				bufio.NewReader(theirs).ReadString('\n')
				io.WriteString(theirs, "968 , 23 : ERROR : NO-USER\r\n")
			}()
			return ours, nil
		}}
		_, err := c.Ask(t.Context(), netip.MustParseAddrPort("192.0.2.1:113"), tt.asks)
		if !errors.Is(err, tt.want) || dials != tt.dials || len(ports) != dials {
			t.Errorf("%s: %v after %d dials from %d ports", name, err, dials, len(ports))
		}
	}
}

func TestCheckPin(t *testing.T) {
	_, pin := newCertificate(t, time.Now())
	if err := CheckPin(pin); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "sha256//" + pin, "sha256/" + pin, pin[:43], pin + "=", pin + "\n", " " + pin, strings.Repeat("A", 42) + "B=", strings.Repeat("0", 64), pin[:40] + "\n" + pin[40:]} {
		if CheckPin(bad) == nil {
			t.Errorf("%q is a pin", bad)
		}
	}
}
