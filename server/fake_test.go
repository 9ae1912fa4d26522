package server

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
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
	forwards bool                      // see examine.Examiner
	uid      uint64                    // the owner of all connections
	local    netip.AddrPort            // the local end of what is found; not valid is that of the question
	find     func(stop.Question) error // nil: every connection exists
	examine  func(stop.Question) error // called before the answer
	previous func() []stop.Previous    // the candidates
	// watchable says whether watching may tell which is meant.
	watchable bool
	name      func(stop.Question) string   // the user's name that the answer comes with
	unread    bool                         // what it says of the user's files
	keepErr   func([]stop.Traceback) error // of what is kept of trace-backs
	tracer    *Tracebacks                  // is told what was found
	decline   func(q stop.Question, why string) error

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
	return f.connection(q)
}

// between is what is told of the connection between two ends.
func between(local, remote netip.AddrPort, owner uint64) stop.Connection {
	return stop.Connection{ID: maphash.Comparable(seed, [2]netip.AddrPort{local, remote}) | 1, Owner: owner}
}

var seed = maphash.MakeSeed()

func (f *fake) connection(q stop.Question) (stop.Connection, error) {
	local := q.Local
	if f.local.IsValid() {
		local = f.local
	}
	return between(local, q.Remote, f.uid), nil
}

func (f *fake) Examine(ctx context.Context, q stop.Question) (stop.Examined, error) {
	f.mu.Lock()
	f.examined = append(f.examined, q)
	f.mu.Unlock()
	for _, hook := range []func(stop.Question) error{f.find, f.examine} {
		if hook != nil {
			if err := hook(q); err != nil {
				return stop.Examined{}, err
			}
		}
	}
	c, _ := f.connection(q)
	found := stop.Finding{Connection: c, Watchable: f.watchable}
	f.mu.Lock()
	if f.previous != nil {
		found.Previous = f.previous()
	}
	x := stop.Examined{Token: f.token(), Unread: f.unread}
	if f.name != nil {
		x.Name = f.name(q)
	}
	f.mu.Unlock()
	return x, f.found(ctx, q, x.Token, found)
}

// found tells of a token, as an examiner does.
func (f *fake) found(ctx context.Context, q stop.Question, t stop.Token, of stop.Finding) error {
	if !q.Type.Recursive() && !f.forwards {
		return nil
	}
	of.Token, of.Type, of.SID, of.Requester = t, q.Type, q.SID, q.Requester
	return f.tracer.Found(ctx, of)
}

func (f *fake) Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	if f.decline != nil {
		if err := f.decline(q, why); err != nil {
			return stop.Token{}, err
		}
	}
	f.mu.Lock()
	t := f.token()
	f.declined = append(f.declined, declined{q, why, sameAs, t})
	f.mu.Unlock()
	return t, f.found(ctx, q, t, stop.Finding{})
}

func (f *fake) keepTraceback(_ context.Context, t stop.Token, ts []stop.Traceback) error {
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

// An asked answers as it is told to, and has a part that asks previous hosts.
type asked interface {
	Answerer
	traced(by *Tracebacks)
	keepTraceback(ctx context.Context, t stop.Token, ts []stop.Traceback) error
}

func (f *fake) traced(by *Tracebacks) { f.tracer = by }

// newServer makes both halves of what answers.
func newServer(a asked, c *Config) *Server {
	tb := NewTracebacks(a.keepTraceback, c)
	a.traced(tb)
	return New(a, tb, c)
}

// tracing is the other half of a server.
func (s *Server) tracing() *Tracebacks { return s.tracer.(*Tracebacks) }

// settle waits until all that was asked has an answer, that of previous hosts too.
func (s *Server) settle() {
	s.under.Wait()
	s.tracing().under.Wait()
}

// recorded waits until what became of trace-backs is kept.
func (s *Server) recorded() { s.tracing().promises.writing.Wait() }

// flush waits until all that was asked has an answer, and has it recorded before it is due.
func (s *Server) flush() {
	s.settle()
	s.tracing().promises.flush()
	s.recorded()
}

// finish ends both halves.
func (s *Server) finish(t *testing.T) {
	t.Helper()
	if err := s.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.tracing().Wait(t.Context()); err != nil {
		t.Error(err)
	}
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
