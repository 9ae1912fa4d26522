package server

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"

	"github.com/stopd/stopd"
)

// tlsFirst is the first octet of whoever speaks TLS: that of a handshake record (RFC 8446 section 5.1). No request
// begins with it.
const tlsFirst = 0x16

// noTLS is the answer to a handshake where this host has no key: a fatal alert, handshake_failure.
var noTLS = []byte{0x15, 3, 3, 0, 2, 2, 40}

// maxHandshake is how many octets a client's part of a handshake may have. A hello has less than 2,000, a certificate as
// hosts make them 300.
const maxHandshake = 16 << 10

// handshakesAtOnce is how many handshakes are computed at once: no source then has more than half of the processors.
func handshakesAtOnce() int { return max(2, runtime.GOMAXPROCS(0)) }

var (
	errHandshake = errors.New("handshake too long")
	errTurn      = errors.New("too many handshakes")
	errNoKey     = errors.New("this host has no key")
)

// begins reads the first octet of a connection and, where that speaks TLS, makes it so. What it returns is written to and,
// if the connection is secure then, read from instead.
func (s *Server) begins(cfg *Config, c *conn, r *bufio.Reader) (net.Conn, error) {
	first, err := r.Peek(1)
	if err != nil || first[0] != tlsFirst {
		return c.Conn, err
	}
	secure, err := s.handshake(cfg, c, r)
	if err != nil {
		s.Counters.FailedHandshakes.Add(1)
		drain(c.Conn) // or why would not arrive
		return nil, err
	}
	s.Counters.Handshakes.Add(1)
	return secure, nil
}

// handshake makes TLS 1.3 of a connection of which nothing was read but what is in r. It has the deadline of the
// connection.
func (s *Server) handshake(cfg *Config, c *conn, r *bufio.Reader) (net.Conn, error) {
	if cfg.Certificate == nil {
		c.Write(noTLS)
		return nil, errNoKey
	}
	p := &paced{Conn: c.Conn, r: r, turns: s.handshakes, by: payer{source: c.source}, left: maxHandshake}
	secure := tls.Server(p, serverTLS(cfg, c))
	err := secure.Handshake()
	p.end()
	p.turns = nil
	if err != nil {
		return nil, err
	}
	if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
		c.key = stop.PinOf(certs[0])
	}
	c.secure = true
	return secure, nil
}

// serverTLS asks a peer with a pin for its certificate. It need not have one, but no other than the pinned key. From
// everybody else no certificate is read.
func serverTLS(cfg *Config, c *conn) *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cfg.Certificate}, SessionTicketsDisabled: true}
	if pin := cfg.peer(c.from).Pin; pin != "" {
		t.ClientAuth = tls.RequestClientCert
		t.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error { // before its signature is looked at
			if len(raw) == 0 {
				return nil
			}
			leaf, err := x509.ParseCertificate(raw[0])
			if err == nil && stop.PinOf(leaf) != pin {
				err = stop.ErrPin
			}
			return err
		}
	}
	return t
}

// A paced connection computes its handshake in turns: it has a place only while it does not wait for the other end, so
// that who is slow takes none.
type paced struct {
	net.Conn
	r     io.Reader
	turns *shares // nil once the handshake is over
	by    payer
	has   bool // a place
	left  int  // octets that the handshake may still have
}

func (p *paced) Read(b []byte) (int, error) {
	if p.turns == nil {
		return p.r.Read(b)
	}
	p.end()
	if p.left == 0 {
		return 0, errHandshake
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	if err == nil {
		if p.has = p.turns.wait(p.by, lookupWait); !p.has {
			err = errTurn
		}
	}
	return n, err
}

func (p *paced) Write(b []byte) (int, error) {
	p.end()
	return p.Conn.Write(b)
}

// end gives the place back.
func (p *paced) end() {
	if p.has {
		p.turns.giveBack(p.by)
		p.has = false
	}
}

// lowPorts are those below: only root binds them, mostly.
const lowPorts = 1024

// stranger says why who is at the other end of a connection may not ask on behalf of other hosts; empty where he may.
func (cfg *Config) stranger(c *conn) string {
	switch pin := cfg.peer(c.from).Pin; {
	case !within(c.from, cfg.OnBehalf):
		return "the requester may not ask on behalf of other hosts"
	case c.secure && (pin == "" || c.key != pin):
		return "the requester may not ask on behalf of other hosts by TLS without a pinned key"
	case !c.secure && c.port >= lowPorts:
		return "the requester may not ask on behalf of other hosts in plain from a port above 1023"
	}
	return ""
}
