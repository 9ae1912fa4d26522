package server

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// hello is what a client begins with.
func hello(t testing.TB) []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake()
		theirs.Close()
	}()
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// Who is slow to speak TLS, or stops half way, is closed when who says nothing is.
func TestSlowHandshake(t *testing.T) {
	b := hello(t)
	cfg, _, _ := tlsConfig(t)
	for name, says := range map[string]func(net.Conn){
		"one octet":          func(c net.Conn) { c.Write(b[:1]) },
		"half a hello":       func(c net.Conn) { c.Write(b[:len(b)/2]) },
		"half a handshake":   func(c net.Conn) { c.Write(b) },
		"an octet a second":  func(c net.Conn) { drip(c, b) },
		"records, each of 1": func(c net.Conn) { drip(c, bytes.Repeat([]byte{0x16, 3, 1, 0, 1, 1}, 1000)) },
		"a handshake alone": func(c net.Conn) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(&fake{}, cfg)
				began := time.Now()
				ours, theirs := net.Pipe()
				c := served(t, s, ours, theirs, "127.0.0.9", 40000)
				if name != "a handshake alone" {
					go io.Copy(io.Discard, c)
				}
				s.under.Go(func() { says(c) })
				s.under.Wait()
				if took := time.Since(began); took > cfg.Limits.Idle+time.Second {
					t.Errorf("it took %s", took)
				}
				if got := s.handshakes.bound(""); got.Used != 0 {
					t.Errorf("%d places are taken still", got.Used)
				}
			})
		})
	}
}

func drip(c net.Conn, b []byte) {
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// No more of a handshake is read than its bound.
func TestLongHandshake(t *testing.T) {
	cfg, _, peer := tlsConfig(t)
	long := &tls.Certificate{Certificate: [][]byte{peer.Certificate[0]}, PrivateKey: peer.PrivateKey}
	for range 100 {
		long.Certificate = append(long.Certificate, peer.Certificate[0])
	}
	s := newServer(&fake{}, cfg)
	got := secured(t, raw(t, s, "127.0.0.3", 40000), long).ask("1 , 2\r\n")
	s.under.Wait()
	if got != "" || s.Counters.FailedHandshakes.Load() != 1 {
		t.Errorf("a chain of 101 certificates is answered %q", got)
	}
}

// A slowSigner signs when it may.
type slowSigner struct {
	crypto.Signer
	begun chan bool
	may   chan struct{}
}

func (s slowSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.begun <- true
	<-s.may
	return s.Signer.Sign(r, digest, opts)
}

// One source's handshakes do not keep another's from being computed, and those that wait for their clients keep nobody's.
func TestHandshakesShared(t *testing.T) {
	cfg, own, _ := tlsConfig(t)
	b := hello(t)
	synctest.Test(t, func(t *testing.T) {
		const flood = 20
		slow := slowSigner{own.PrivateKey.(crypto.Signer), make(chan bool, 2*flood), make(chan struct{})}
		held := *own
		held.PrivateKey = slow
		cfg.Certificate = &held
		s := newServer(&fake{}, cfg)
		s.handshakes = newShares(2, slotShare)
		connect := func(from string) net.Conn {
			ours, theirs := net.Pipe()
			return served(t, s, ours, theirs, from, 40000)
		}
		for range flood { // all with a whole hello: one is signed for, the others wait for it
			c := connect("127.0.0.9")
			go c.Write(b)
			go io.Copy(io.Discard, c)
		}
		<-slow.begun
		for range 30 { // and these stopped half way
			c := connect("127.0.0.8")
			go c.Write(b[:len(b)-1])
		}
		answered := make(chan string)
		other := secured(t, connect("198.51.100.7"), nil)
		go func() { answered <- other.ask("1 , 2\r\n") }()
		<-slow.begun // the other's, while the first is not done
		if got := s.handshakes.bound(""); got.Used != 2 {
			t.Errorf("%d are computed at once", got.Used)
		}
		close(slow.may)
		if got := <-answered; !strings.Contains(got, "USERID") {
			t.Errorf("the other source's reply is %q", got)
		}
	})
}

// Whatever the first octet, TLS is answered by TLS and all else in plain, and no handshake of rubbish succeeds.
func FuzzFirstOctet(f *testing.F) {
	cfg, _, _ := tlsConfig(f)
	b := hello(f)
	for _, seed := range [][]byte{b, b[:1], b[:100], append(b, b...), append(b, "1,2\r\n"...), []byte("1,2\r\n"), []byte("\x15\x03\x03\x00\x02\x02\x28"),
		[]byte("\x80\x2e\x01\x00\x02"), []byte("GET / HTTP/1.0\r\n\r\n"), []byte("\x16\n"), []byte("\x16\x03\x01\xff\xff"), []byte("\x17\x03\x03\x00\x01x"), []byte(" \x16\r\n"), {0}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newServer(&fake{}, cfg)
		isTLS := len(b) > 0 && b[0] == tlsFirst
		ours, theirs := net.Pipe()
		c := served(t, s, ours, theirs, "127.0.0.9", 40000)
		go func() {
			c.Write(b)
			c.Write([]byte("\nno request\n")) // an end for what is in plain
			if isTLS {
				c.Close()
			}
		}()
		all, _ := io.ReadAll(c)
		c.Close()
		s.under.Wait()
		if n := s.Counters.Handshakes.Load(); n > 0 {
			t.Error("a handshake without a key share of ours")
		}
		if n := s.Counters.FailedHandshakes.Load(); isTLS != (n == 1) {
			t.Errorf("%d handshakes failed", n)
		}
		if isTLS && s.Counters.Requests.Load() > 0 {
			t.Error("a line of a handshake was read as a request")
		}
		switch {
		case len(all) == 0:
		case isTLS && (all[0] < 0x14 || all[0] > 0x17 || len(all) < 5):
			t.Errorf("TLS is answered %q", all)
		case !isTLS && !bytes.HasSuffix(all, []byte("\r\n")):
			t.Errorf("plain is answered %q", all)
		}
	})
}
