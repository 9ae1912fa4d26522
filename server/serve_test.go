package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

const malformed = "0 , 0 : ERROR : UNKNOWN-ERROR"

func TestMalformed(t *testing.T) {
	for _, line := range []string{
		"", "hello", "968", "968,", "-1,23", "968,023", "968,23,42", "968,23:", "968,23:NAME", "968,23:SV_REC", "968,23:SV:7",
		"968,23:ID:::1", "968,23\x00", "99999999999,1", "GET / HTTP/1.0", strings.Repeat("x", 999), strings.Repeat(" ", 1001),
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			cfg := testConfig()
			cfg.Errors = ErrorsToken // there is no line that a token could be the answer to
			s := newServer(f, cfg)
			c := dialPipe(t, s, "127.0.0.9")
			go io.WriteString(c, line+"\r\n968 , 23\r\n")
			if got := c.line(); got != malformed {
				t.Errorf("%q is answered %q", line, got)
			}
			if !c.closed() {
				t.Errorf("%q: the connection goes on", line)
			}
			if finds, examined, declined := f.seen(); finds+examined+declined != 0 {
				t.Errorf("%q costs a look-up or a record", line)
			}
			c.Close()
		})
	}
}

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(&fake{}, testConfig())
		c := dialPipe(t, s, "127.0.0.9")
		for _, line := range []string{"1,2\r\n", "1,2\n", " 1 , 2 : SV\n", strings.Repeat(" ", stop.MaxLine-3) + "1,2\r\n"} {
			tokenIn(t, "1 , 2", c.ask(line))
		}
		// Several at once, in parts, in turn.
		go func() {
			for _, part := range []string{"1,2\r\n1,", "3", "\r", "\n1,4\n"} {
				io.WriteString(c, part)
			}
		}()
		for _, ports := range []string{"1 , 2", "1 , 3", "1 , 4"} {
			tokenIn(t, ports, c.line())
		}
		// A line that has no end is no request.
		io.WriteString(c, "1,5")
		c.Close()
		s.under.Wait()
		if n := s.Counters.Requests.Load(); n != 7 {
			t.Errorf("%d requests counted", n)
		}
	})
}

func TestRequestsPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.RequestsPerConn = 3
		s := newServer(&fake{}, cfg)
		c := dialPipe(t, s, "127.0.0.9")
		for range 3 {
			tokenIn(t, "1 , 2", c.ask("1 , 2\r\n"))
		}
		if !c.closed() {
			t.Error("a fourth request is read")
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		s := newServer(&fake{}, cfg)
		start := time.Now()
		c := dialPipe(t, s, "127.0.0.9")
		time.Sleep(cfg.Limits.Idle - time.Second)
		tokenIn(t, "1 , 2", c.ask("1 , 2\r\n")) // and the time begins anew
		// Octets that come one by one are no line.
		go func() {
			for {
				if _, err := io.WriteString(c, "1"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if !c.closed() {
			t.Error("it goes on")
		}
		if got := time.Since(start); got != 2*cfg.Limits.Idle-time.Second {
			t.Errorf("closed after %s", got)
		}
		// Who does not read the reply does not hold the connection for ever.
		deaf := dialPipe(t, s, "127.0.0.9")
		start = time.Now()
		io.WriteString(deaf, "1 , 2\r\n")
		s.under.Wait()
		if got := time.Since(start); got != cfg.Limits.Idle {
			t.Errorf("given up after %s", got)
		}
	})
}

// What a client asked for is done whether or not it waits for the reply.
func TestClientVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{examine: func(stop.Question) error { <-gate; return nil }}
		s := newServer(f, testConfig())
		c := dialPipe(t, s, "127.0.0.9")
		io.WriteString(c, "1 , 2 : SV_REC : 7\r\n")
		synctest.Wait()
		c.Close()
		close(gate)
		s.finish(t)
		if len(f.kept) != 1 {
			t.Error("the trace-back was not kept")
		}
	})
}

// listen serves on loopback until the test ends.
func listen(t *testing.T, ctx context.Context, s *Server) (addr string, served <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), done
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &client{t, c, bufio.NewReader(c)}
}

// The reply to what is too long arrives, though most of it was never read.
func TestReplyArrivesBeforeTheEnd(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.RequestsPerConn = 1
	addr, _ := listen(t, t.Context(), newServer(&fake{}, cfg))
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("x", 60000), malformed},
		{"1 , 2\r\n" + strings.Repeat("1 , 2\r\n", 5000), "1 , 2 : USERID : OTHER : TOKEN"},
		{"nonsense\r\n" + strings.Repeat("1 , 2\r\n", 5000), malformed},
	} {
		until := time.Now().Add(2 * time.Minute)
		for n := 0; n < 20; {
			began := time.Now()
			err := answeredToTheEnd(t, addr, c.text, c.want)
			switch {
			case err == nil:
				n++
			case time.Since(began) < drainTime || began.After(until): // the rest is listened to for no longer, and a busy machine may take that
				t.Fatalf("%.20q: %v", c.text, err)
			}
		}
	}
}

// answeredToTheEnd says why a text has not one reply and then the end.
func answeredToTheEnd(t *testing.T, addr, text, want string) error {
	conn := dial(t, addr)
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	conn.Conn.(*net.TCPConn).CloseWrite()
	line, err := conn.r.ReadString('\n')
	if got := shape(strings.TrimSuffix(line, "\r\n")); err != nil || got != want {
		return fmt.Errorf("answered %q, %v", got, err)
	}
	if _, err := conn.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the reply %w, not the end", err)
	}
	return nil
}

func TestServeTCP(t *testing.T) {
	f := &fake{}
	addr, _ := listen(t, t.Context(), newServer(f, testConfig()))
	c := dial(t, addr)
	tokenIn(t, "1 , 2", c.ask("1 , 2 : SV\r\n"))
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(addr)
	q := f.examined[0]
	if q.Requester != from.Addr() || q.Remote != netip.AddrPortFrom(from.Addr(), 2) || q.Local != netip.AddrPortFrom(to.Addr(), 1) {
		t.Errorf("the question is %+v", q)
	}
}

func TestShutdownFinishes(t *testing.T) {
	asked, gate := make(chan struct{}), make(chan struct{})
	f := &fake{examine: func(stop.Question) error { close(asked); <-gate; return nil }}
	s := newServer(f, testConfig())
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := listen(t, ctx, s)
	idle, busy := dial(t, addr), dial(t, addr)
	io.WriteString(busy, "1 , 2 : SV_REC : 7\r\n1 , 3\r\n")
	<-asked
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if !idle.closed() {
		t.Error("an idle connection goes on")
	}
	expired, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	if err := s.Wait(expired); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait ended with %v while a request is under way", err)
	}
	close(gate)
	tokenIn(t, "1 , 2", busy.line())
	if !busy.closed() {
		t.Error("another request was begun")
	}
	s.finish(t)
	if len(f.kept) != 1 {
		t.Error("the trace-back was not kept")
	}
}

// A flakyListener fails as one does that is out of descriptors.
type flakyListener struct {
	net.Listener
	fails int
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(&fake{}, testConfig())
	idle := &countingConn{}
	s.conns.add(idle, netip.MustParseAddr("192.0.2.7"), s.config.Load().Limits, &s.Counters, &s.reached)
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), &flakyListener{l, 3}) }()
	tokenIn(t, "1 , 2", dial(t, l.Addr().String()).ask("1 , 2\r\n"))
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve ended with %v", err)
	}
	if idle.closed != 1 {
		t.Errorf("an idle connection was closed %d times to make room", idle.closed)
	}
}

type countingConn struct {
	net.Conn
	closed int
}

func (c *countingConn) Close() error { c.closed++; return nil }

// Whatever a client sends, it gets whole reply lines or the end, and nothing panics.
func FuzzConnection(f *testing.F) {
	for _, seed := range []string{"1,2\r\n", "1,2:SV_REC:7:192.0.2.7\n0,0\r\n", "\r\n", "\x00\xff\n", strings.Repeat("1", 1200), "1,2:ID:[::1]\r\nx", "70000,1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 0 && b[0] == tlsFirst {
			return // FuzzFirstOctet
		}
		cfg := testConfig()
		cfg.OnBehalf = []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}
		s := newServer(&fake{find: func(q stop.Question) error {
			if q.Local.Port()%2 == 0 {
				return stop.ErrNoUser
			}
			return nil
		}}, cfg)
		ours, theirs := net.Pipe()
		s.under.Go(func() {
			s.serve(t.Context(), pipeEnd{Conn: theirs, local: netip.MustParseAddr("127.0.0.1"), remote: netip.MustParseAddr("127.0.0.9")})
		})
		go func() {
			ours.Write(b)
			ours.Write([]byte("1,1:ID:192.0.2.7\r\n")) // an end for what has none
			ours.Write([]byte("no request\n"))         // and the connection's
		}()
		all, err := io.ReadAll(ours)
		if err != nil {
			t.Fatal(err)
		}
		ours.Close()
		s.under.Wait()
		lines := strings.SplitAfter(string(all), "\r\n")
		if lines[len(lines)-1] != "" {
			t.Errorf("half a reply: %q", lines[len(lines)-1])
		}
		lines = lines[:len(lines)-1]
		if len(lines) == 0 {
			t.Error("no reply at all")
		}
		for i, l := range lines {
			l = strings.TrimSuffix(l, "\r\n")
			var r stop.Request
			if _, err := stop.ParseReply([]byte(l), stop.Request{}); err == nil {
				continue // 0 , 0
			}
			ports, _, _ := strings.Cut(l, " : ")
			if r, err = stop.ParseRequest([]byte(ports)); err != nil {
				t.Fatalf("reply %q has no ports", l)
			}
			if _, err := stop.ParseReply([]byte(l), r); err != nil {
				t.Errorf("reply %q cannot be read: %v", l, err)
			}
			if l == malformed && i < len(lines)-1 {
				t.Errorf("the connection went on after %q", l)
			}
		}
	})
}
