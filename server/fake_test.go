package server

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// A fake answers as it is told to, and remembers what it was asked. Connections that nobody told it of do
// not exist.
type fake struct {
	uid      uint32
	local    netip.AddrPort               // what Find says the local end is; not valid is that of the question
	find     func(stop.Question) error    // nil: every connection exists
	examine  func(stop.Question) error    // called before the answer
	previous func() []stop.Previous       // the candidates
	name     func(stop.Question) string   // the user's name that the answer comes with
	unread   bool                         // what it says of the user's files
	keepErr  func([]stop.Traceback) error // of KeepTraceback
	decline  func(q stop.Question, why string) error

	mu       sync.Mutex
	finds    int
	examined []stop.Question
	declined []declined
	kept     map[stop.Token][][]stop.Traceback
	issued   uint64
}

type declined struct {
	q      stop.Question
	why    string
	sameAs stop.Token
	token  stop.Token
}

func (f *fake) token() stop.Token {
	f.issued++
	var t stop.Token
	t[0] = 1
	binary.BigEndian.PutUint64(t[8:], f.issued)
	return t
}

func (f *fake) Find(_ context.Context, q stop.Question) (stop.Connection, error) {
	f.mu.Lock()
	f.finds++
	f.mu.Unlock()
	if f.find != nil {
		if err := f.find(q); err != nil {
			return stop.Connection{}, err
		}
	}
	local := q.Local
	if f.local.IsValid() {
		local = f.local
	}
	return stop.Connection{Local: local, Remote: q.Remote, UID: f.uid}, nil
}

func (f *fake) Examine(_ context.Context, q stop.Question) (stop.Finding, error) {
	f.mu.Lock()
	f.examined = append(f.examined, q)
	f.mu.Unlock()
	for _, hook := range []func(stop.Question) error{f.find, f.examine} {
		if hook != nil {
			if err := hook(q); err != nil {
				return stop.Finding{}, err
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found := stop.Finding{Token: f.token(), Unread: f.unread}
	if f.name != nil {
		found.Name = f.name(q)
	}
	if f.previous != nil {
		found.Previous = f.previous()
	}
	return found, nil
}

func (f *fake) Decline(_ context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	if f.decline != nil {
		if err := f.decline(q, why); err != nil {
			return stop.Token{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.token()
	f.declined = append(f.declined, declined{q, why, sameAs, t})
	return t, nil
}

func (f *fake) KeepTraceback(_ context.Context, t stop.Token, ts []stop.Traceback) error {
	if f.keepErr != nil {
		if err := f.keepErr(ts); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[stop.Token][][]stop.Traceback{}
	}
	f.kept[t] = append(f.kept[t], append([]stop.Traceback{}, ts...))
	return nil
}

// seen returns how often each method was called.
func (f *fake) seen() (finds, examined, declined int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.finds, len(f.examined), len(f.declined)
}

// lastKept returns the last record of a token; false where it has none.
func (f *fake) lastKept(t stop.Token) ([]stop.Traceback, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rs := f.kept[t]
	if len(rs) == 0 {
		return nil, false
	}
	return rs[len(rs)-1], true
}

// testConfig has bounds that no test reaches but the one that sets its own.
func testConfig() *Config {
	return &Config{
		Errors:   ErrorsStandard,
		OnBehalf: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")},
		Limits: Limits{Connections: 64, ConnectionsPerSource: 64, RequestsPerConn: 100, Idle: 30 * time.Second, Lookups: 8,
			PerSourcePerSecond: 1000, Burst: 1000, PerUserPerSecond: 1000, UserBurst: 1000, AskersPerSID: 8, Table: 1000, Over: OverDecoy},
		Traceback: TracebackConfig{Port: 113, Window: 2 * time.Minute,
			To:          []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
			MaxPrevious: 8, Timeout: 5 * time.Second, Parallel: 8},
		Logger: slog.New(slog.DiscardHandler),
	}
}

// A pipeEnd is a connection without a network, so that its time can be made up.
type pipeEnd struct {
	net.Conn
	local, remote netip.Addr
	port          int // of the other end; 0 is one that may ask on behalf of others
}

func (p pipeEnd) LocalAddr() net.Addr { return &net.TCPAddr{IP: p.local.AsSlice(), Port: 113} }
func (p pipeEnd) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: p.remote.AsSlice(), Port: cmp.Or(p.port, 1023)}
}

// serve answers one connection, as Serve does.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	if c := s.admitted(nc); c != nil {
		s.converse(ctx, c)
	}
}

// A client is one end of a connection with a server.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// dialPipe connects to a server from an address, without a network.
func dialPipe(t *testing.T, s *Server, from string) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	end := pipeEnd{Conn: theirs, local: netip.MustParseAddr("127.0.0.1"), remote: netip.MustParseAddr(from)}
	s.under.Go(func() { s.serve(t.Context(), end) })
	return &client{t, ours, bufio.NewReader(ours)}
}

// ask sends text and reads one line; "" where the connection ended instead.
func (c *client) ask(text string) string {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	return c.line()
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		if line != "" {
			c.t.Errorf("half a reply: %q", line)
		}
		return ""
	}
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		c.t.Errorf("reply %q does not end in CR LF", line)
	}
	return line
}

// closed reports whether nothing more comes.
func (c *client) closed() bool {
	_, err := c.r.ReadByte()
	return err != nil && !errors.Is(err, context.DeadlineExceeded)
}

// once asks on a connection of its own.
func once(t *testing.T, s *Server, from, line string) string {
	t.Helper()
	c := dialPipe(t, s, from)
	defer c.Close()
	return c.ask(line + "\r\n")
}

// tokenIn returns the token of a reply to a request, and fails where it is another reply.
func tokenIn(t *testing.T, ports, reply string) stop.Token {
	t.Helper()
	text, ok := strings.CutPrefix(reply, ports+" : USERID : OTHER : ")
	token, err := stop.ParseToken(text)
	if !ok || err != nil {
		t.Fatalf("reply %q is no token for %s: %v", reply, ports, err)
	}
	return token
}

var errNoUser = func(stop.Question) error { return stop.ErrNoUser }
