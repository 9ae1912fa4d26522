package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stopd/stopd"
)

// A Server answers requests. Its configuration may be replaced while it runs.
type Server struct {
	answerer Answerer
	tracer   Tracer
	config   atomic.Pointer[Config]
	log      *slog.Logger

	conns      conns
	lookups    *shares
	sources    *budgets[netip.Prefix]
	users      *budgets[uint64]
	asked      *table[repeat, *asking]
	askers     *table[uint64, map[netip.Addr]bool]
	connection *table[uint64, bool]
	promised   *shares // trace-back records; room is taken for them before any work is done
	handshakes *shares // that are computed
	under      sync.WaitGroup
	grid       grid
	reached    reached

	Counters Counters
}

// slotShare is the part of the look-ups, or trace-backs, left that one source may have.
const slotShare = 2

// promiseShare is the same for the trace-back records that are promised, as with room in the store.
const promiseShare = 8

// New returns a server that answers by an Answerer and has a Tracer ask previous hosts. The bounds Lookups and Table
// are those of the first configuration.
func New(a Answerer, t Tracer, c *Config) *Server {
	n := c.Limits.Table
	s := &Server{
		answerer: a, tracer: t, log: c.Logger,
		conns:      conns{open: map[*conn]bool{}, bySource: map[netip.Prefix]int{}},
		lookups:    newShares(c.Limits.Lookups, slotShare),
		sources:    newBudgets[netip.Prefix](n),
		users:      newBudgets[uint64](n),
		asked:      newTable[repeat, *asking](n),
		askers:     newTable[uint64, map[netip.Addr]bool](n),
		connection: newTable[uint64, bool](n),
		promised:   newShares(n, promiseShare),
		handshakes: newShares(handshakesAtOnce(), slotShare),
	}
	s.config.Store(c)
	return s
}

// Configure replaces the configuration, for connections that are open too. The bounds Lookups and Table stay as they
// were at the start.
func (s *Server) Configure(c *Config) { s.config.Store(c) }

// Serve accepts connections until the context ends or the listener fails.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stopped := context.AfterFunc(ctx, func() { l.Close() })
	defer stopped()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Out of descriptors, or a connection that ended before it was accepted: the daemon goes on.
			s.reached.descriptors.Add(1)
			s.log.Warn("accept connection", "error", err)
			s.conns.evict(&s.Counters)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		// Here and not beside: connections that wait to be counted would be without a bound.
		if c := s.admitted(c); c != nil {
			s.under.Go(func() { s.converse(ctx, c) })
		}
	}
}

// Wait waits until the replies that are under way have left, or the context has ended.
func (s *Server) Wait(ctx context.Context) error { return waitFor(ctx, &s.under) }

func waitFor(ctx context.Context, under *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { under.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// admitted counts a connection; where it has to go it is closed, and nil.
func (s *Server) admitted(nc net.Conn) *conn {
	from, ok := endOf(nc.RemoteAddr())
	to, ok2 := endOf(nc.LocalAddr())
	if !ok || !ok2 {
		nc.Close()
		return nil
	}
	var sent netip.Addr
	if s.config.Load().Forwards {
		var err error
		if sent, err = sentTo(nc); err != nil { // it may be about another host's connection: not to be taken for this one's
			s.Counters.Refused.Add(1)
			s.log.Warn("refuse connection", "error", err)
			nc.Close()
			return nil
		}
	}
	c := s.conns.add(nc, from.Addr(), s.config.Load().Limits, &s.Counters, &s.reached)
	if c == nil {
		s.Counters.Refused.Add(1)
		nc.Close()
		return nil
	}
	c.from, c.port, c.to = from.Addr(), from.Port(), to.Addr()
	if sent != c.to.WithZone("") {
		c.sentTo = sent
	}
	return c
}

// converse answers the requests of one connection in turn.
func (s *Server) converse(ctx context.Context, nc *conn) {
	defer s.conns.remove(nc)
	defer nc.Close()
	cfg := s.config.Load()
	// When the daemon stops, whoever is waiting for a line waits no longer; replies are still sent.
	stopped := context.AfterFunc(ctx, func() { nc.SetReadDeadline(time.Now()) })
	defer stopped()
	r := bufio.NewReaderSize(nc, stop.MaxLine+2)
	nc.SetDeadline(time.Now().Add(cfg.Limits.Idle)) // of the first line, and of a handshake before it
	if ctx.Err() != nil {
		return
	}
	w, err := s.begins(cfg, nc, r)
	if err != nil {
		if ctx.Err() == nil {
			s.reached.countEnd(err)
		}
		return
	}
	if nc.secure {
		r = bufio.NewReaderSize(w, stop.MaxLine+2)
	}
	for n := 0; ; n++ {
		if n >= cfg.Limits.RequestsPerConn {
			s.reached.requestsPerConn.Add(1)
			break
		}
		if n > 0 {
			nc.SetDeadline(time.Now().Add(cfg.Limits.Idle))
		}
		if ctx.Err() != nil {
			return
		}
		if !s.conns.waiting(nc) {
			break
		}
		line, err := readLine(r)
		if err != nil && !errors.Is(err, errLine) {
			if ctx.Err() == nil {
				s.reached.countEnd(err)
			}
			return // it ended, or was silent for too long
		}
		if !s.conns.working(nc) {
			return // what is not answered is not counted, nor followed
		}
		cfg = s.config.Load()
		if !nc.secure && cfg.peer(nc.from).Pin != "" {
			s.Counters.PlainRefused.Add(1)
			return // not a word in plain, whatever was asked
		}
		if !s.reply(ctx, cfg, nc, w, line, err) {
			break
		}
	}
	s.conns.waiting(nc)
	drain(w)
}

// reply answers one line of a connection, in plain or by TLS as w does; it returns false where it is to be closed.
func (s *Server) reply(ctx context.Context, cfg *Config, nc *conn, w net.Conn, line []byte, lineErr error) bool {
	s.Counters.Requests.Add(1)
	began := time.Now()
	req, err := stop.ParseRequest(line)
	if lineErr != nil || err != nil {
		s.Counters.Malformed.Add(1)
		if lineErr != nil {
			s.reached.line.Add(1)
		}
		w.Write(stop.Reply{Error: stop.UnknownError}.Line())
		return false
	}
	// Nothing a client does ends the work on its request: not even that it vanishes.
	work := context.WithoutCancel(ctx)
	q := req.About(nc.from, nc.to, began.UTC())
	q.SentTo = nc.sentTo
	q.Naming = cfg.Naming(q)
	a, err := s.answer(work, cfg, q, cfg.stranger(nc))
	if err != nil {
		s.Counters.Failed.Add(1)
		s.log.Error("answer request", "error", err)
		return false // a reply that nothing durable stands for would be a lie
	}
	s.release(cfg, q, began, a.examined)
	nc.SetWriteDeadline(time.Now().Add(cfg.Limits.Idle))
	_, err = w.Write(a.reply.Line())
	if a.follow != (stop.Token{}) {
		if err := s.tracer.Begin(work, a.follow); err != nil {
			s.Counters.Failed.Add(1)
			s.log.Error("begin trace-back", "error", err)
		}
	}
	return err == nil
}

// drainTime and drainBytes bound what is read of a client that is not listened to any more.
const (
	drainTime  = time.Second
	drainBytes = 64 << 10
)

// drain lets the last reply arrive: a connection that is closed while something is unread is reset, and
// the reset may overtake the reply.
func drain(nc net.Conn) {
	if c, ok := nc.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil {
		return
	}
	nc.SetReadDeadline(time.Now().Add(drainTime))
	io.CopyN(io.Discard, nc, drainBytes)
}

var errLine = errors.New("line too long")

// readLine reads a line of at most MaxLine octets, without its ending. At the end of input what is there
// without an ending is no request.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errLine
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// endOf is one end of a connection.
func endOf(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), ap.IsValid()
}
