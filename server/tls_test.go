package server

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// newKey makes a certificate for a new key, good until a time, and its pin.
func newKey(t testing.TB, until time.Time) (*tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, stop.PinOf(leaf)
}

// tlsConfig answers by TLS. 127.0.0.2, which may ask on behalf of others, and 127.0.0.3 have a pin.
func tlsConfig(t testing.TB) (cfg *Config, own, peer *tls.Certificate) {
	own, _ = newKey(t, time.Now().Add(time.Hour))
	peer, pin := newKey(t, time.Now().Add(time.Hour))
	cfg = testConfig()
	cfg.Certificate = own
	cfg.OnBehalf = append(cfg.OnBehalf, netip.MustParsePrefix("127.0.0.4/31"))
	cfg.Peers = []Peer{{Hosts: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/31")}, System: SystemOther, Pin: pin}}
	return cfg, own, peer
}

// raw connects to a server from an address and port that are made up, as its connection is not.
func raw(t testing.TB, s *Server, from string, port int) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return served(t, s, ours, theirs, from, port)
}

// served has a server answer at one end of a connection, and returns the other.
func served(t testing.TB, s *Server, ours, theirs net.Conn, from string, port int) net.Conn {
	t.Cleanup(func() { ours.Close() })
	s.under.Go(func() {
		s.serve(t.Context(), pipeEnd{Conn: theirs, local: netip.MustParseAddr("127.0.0.1"), remote: netip.MustParseAddr(from), port: port})
	})
	return ours
}

// secured makes a client of a connection, which shows a certificate if it is not nil.
func secured(t *testing.T, nc net.Conn, shows *tls.Certificate) *client {
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if shows != nil {
		cfg.Certificates = []tls.Certificate{*shows}
	}
	c := tls.Client(nc, cfg)
	return &client{t, c, bufio.NewReader(c)}
}

func TestTLS(t *testing.T) {
	cfg, own, _ := tlsConfig(t)
	f := &fake{}
	s := newServer(f, cfg)
	c := secured(t, raw(t, s, "127.0.0.9", 40000), nil)
	tokenIn(t, "1 , 2", c.ask("1 , 2\r\n"))
	tokenIn(t, "1 , 2", c.ask("1 , 2 : SV_REC : 7\n"))
	f.find = errNoUser
	if got := c.ask("1 , 2 : SV\r\n"); got != "1 , 2 : ERROR : NO-USER" {
		t.Errorf("reply %q", got)
	}
	if got := c.ask("rubbish\r\n"); got != malformed {
		t.Errorf("reply %q", got)
	}
	if _, err := c.r.ReadByte(); err != io.EOF { // nobody cut it off
		t.Errorf("it ended with %v", err)
	}
	state := c.Conn.(*tls.Conn).ConnectionState()
	if state.Version != tls.VersionTLS13 || !state.PeerCertificates[0].Equal(own.Leaf) {
		t.Errorf("the connection is %+v", state)
	}
	c.Close()
	s.under.Wait()
	if s.Counters.Handshakes.Load() != 1 || s.Counters.FailedHandshakes.Load() != 0 || s.Counters.Requests.Load() != 4 {
		t.Errorf("counted %v", s.Counters.Counts())
	}
}

// Whoever has a pin gets not an octet in plain, by TLS what everybody gets, and nothing with another key.
func TestPinned(t *testing.T) {
	cfg, _, peer := tlsConfig(t)
	other, _ := newKey(t, time.Now().Add(time.Hour))
	expired, expiredPin := newKey(t, time.Now().Add(-time.Hour))
	cfg.Peers = append(cfg.Peers, Peer{Hosts: []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}, System: SystemOther, Pin: expiredPin})
	f := &fake{}
	s := newServer(f, cfg)
	for _, line := range []string{"1 , 2\r\n", "1 , 2 : SV_REC : 7 : 192.0.2.7\r\n", "rubbish\r\n", strings.Repeat("1", 2000)} {
		c := raw(t, s, "127.0.0.3", 1000)
		go io.WriteString(c, line)
		if got, _ := io.ReadAll(c); len(got) > 0 { // reset, if there was more to read
			t.Errorf("%.10q is answered %q", line, got)
		}
	}
	if n := s.Counters.PlainRefused.Load(); n != 4 || f.finds != 0 || s.Counters.Requests.Load() != 0 {
		t.Errorf("%d lines refused, %d looked up", n, f.finds)
	}
	for name, shows := range map[string]*tls.Certificate{"no certificate": nil, "its own": peer} {
		c := secured(t, raw(t, s, "127.0.0.3", 40000), shows)
		if got := c.ask("1 , 2\r\n"); !strings.Contains(got, "USERID") {
			t.Errorf("with %s the reply is %q", name, got)
		}
	}
	// A pin is of a key: its certificate may be old.
	if got := secured(t, raw(t, s, "127.0.0.8", 40000), expired).ask("1 , 2\r\n"); !strings.Contains(got, "USERID") {
		t.Errorf("with an expired certificate the reply is %q", got)
	}
	failed := s.Counters.FailedHandshakes.Load()
	for name, shows := range map[string]*tls.Certificate{"another's": other, "an expired one of another's": expired} {
		if got := secured(t, raw(t, s, "127.0.0.3", 40000), shows).ask("1 , 2\r\n"); got != "" {
			t.Errorf("with %s the reply is %q", name, got)
		}
	}
	// He who shows the certificate and has not the key.
	stolen := &tls.Certificate{Certificate: peer.Certificate, PrivateKey: other.PrivateKey}
	if got := secured(t, raw(t, s, "127.0.0.3", 40000), stolen).ask("1 , 2\r\n"); got != "" {
		t.Errorf("with a certificate without its key the reply is %q", got)
	}
	for deadline := time.Now().Add(2 * time.Minute); s.Counters.FailedHandshakes.Load()-failed != 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d handshakes failed", s.Counters.FailedHandshakes.Load()-failed)
		}
	}
	// Nobody else is asked for a certificate.
	c := secured(t, raw(t, s, "127.0.0.9", 40000), nil)
	c.Conn.(*tls.Conn).Close()
	asked := false
	plain := tls.Client(raw(t, s, "127.0.0.9", 40000), &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return other, nil
	}})
	if err := plain.Handshake(); err != nil || asked {
		t.Errorf("%v, certificate asked for: %v", err, asked)
	}
}

// Who may ask on behalf of other hosts: in plain from a port that only root has, by TLS with the pinned key.
func TestWhoAsksOnBehalf(t *testing.T) {
	cfg, _, peer := tlsConfig(t)
	f := &fake{}
	s := newServer(f, cfg)
	for _, tt := range []struct {
		name   string
		from   string
		port   int
		tls    bool
		shows  *tls.Certificate
		reason string
	}{
		{"plain, low port", "127.0.0.4", 1023, false, nil, ""},
		{"plain, high port", "127.0.0.4", 1024, false, nil, "in plain from a port above 1023"},
		{"plain, another", "127.0.0.9", 1023, false, nil, "on behalf of other hosts"},
		{"TLS, pinned key", "127.0.0.2", 40000, true, peer, ""},
		{"TLS, no certificate", "127.0.0.2", 1023, true, nil, "without a pinned key"},
		{"TLS, no pin", "127.0.0.4", 1023, true, peer, "without a pinned key"},
		{"TLS, pinned but not listed", "127.0.0.3", 1023, true, peer, "on behalf of other hosts"},
	} {
		nc := raw(t, s, tt.from, tt.port)
		c := &client{t, nc, bufio.NewReader(nc)}
		if tt.tls {
			c = secured(t, nc, tt.shows)
		}
		before, _, _ := f.seen()
		token := tokenIn(t, "1 , 2", c.ask("1 , 2 : SV : 192.0.2.7\r\n"))
		after, _, _ := f.seen()
		reason := ""
		for _, d := range f.declined {
			if d.token == token {
				reason = d.why
			}
		}
		if tt.reason == "" && (reason != "" || after == before) || tt.reason != "" && (!strings.HasSuffix(reason, tt.reason) || after != before) {
			t.Errorf("%s: %d looked up, declined: %q", tt.name, after-before, reason)
		}
		// For himself he may ask whatever the port.
		if got := c.ask("1 , 2\r\n"); !strings.Contains(got, "USERID") {
			t.Errorf("%s: for himself the reply is %q", tt.name, got)
		}
	}
}

// What a new configuration says of pins holds for connections that are open.
func TestPinsChange(t *testing.T) {
	cfg, _, peer := tlsConfig(t)
	f := &fake{}
	s := newServer(f, cfg)
	ask := "1 , 2 : SV : 192.0.2.7\r\n"
	plain, trusted := dialPipe(t, s, "127.0.0.4"), secured(t, raw(t, s, "127.0.0.2", 40000), peer)
	for _, c := range []*client{plain, trusted} {
		tokenIn(t, "1 , 2", c.ask(ask))
	}
	_, pin := newKey(t, time.Now().Add(time.Hour))
	next := *cfg
	next.Peers = []Peer{{Hosts: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24")}, System: SystemOther, Pin: pin}}
	s.Configure(&next)
	if got := plain.ask(ask); got != "" {
		t.Errorf("in plain the reply is %q", got)
	}
	tokenIn(t, "1 , 2", trusted.ask(ask))
	if _, examined, declined := f.seen(); examined != 2 || declined != 1 {
		t.Errorf("%d examined, %d declined", examined, declined)
	}
}

func TestTLSRefused(t *testing.T) {
	cfg, _, _ := tlsConfig(t)
	old := *cfg
	old.Certificate = nil
	for name, tt := range map[string]struct {
		cfg    *Config
		client *tls.Config
		want   string
	}{
		"no key": {&old, &tls.Config{InsecureSkipVerify: true}, "remote error: tls: handshake failure"},
		"TLS 1.2": {cfg, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
			"remote error: tls: protocol version not supported"},
	} {
		s := newServer(&fake{}, tt.cfg)
		l, err := net.Listen("tcp", "127.0.0.1:0") // where what is not read may cost the alert
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s.under.Go(func() {
			if c, err := l.Accept(); err == nil {
				s.serve(t.Context(), c)
			}
		})
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = tls.Client(c, tt.client).Handshake()
		c.Close()
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v", name, err)
		}
		s.under.Wait()
		if s.Counters.FailedHandshakes.Load() != 1 || s.Counters.Requests.Load() != 0 {
			t.Errorf("%s: counted %v", name, s.Counters.Counts())
		}
	}
}
