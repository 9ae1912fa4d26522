package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/server"
)

// Bounds of forwarding.
const (
	maxForwarding  = 4096 // leaves that wait; those beyond are dropped, and the next checkpoint covers them
	forwardTimeout = 5 * time.Second
	forwardRetry   = time.Second
	forwardEnd     = 3 * time.Second // for what waits when the daemon stops
)

// A forwarder tells a log server each leaf and each checkpoint of the log, by the tracer. No reply waits for it.
type forwarder struct {
	log     *translog.Log
	tell    func(ctx context.Context, f forwardedLine) error
	logger  *slog.Logger
	retry   time.Duration
	origin  string
	queue   chan Forwarded
	dropped atomic.Uint64
	failing bool
	told    int64 // leaves of the checkpoint that was told last
	stop    chan struct{}
	done    chan struct{}
}

// A forwardedLine is a message for the log server, and how many leaves have been dropped so far.
type forwardedLine struct {
	Line    []byte
	Dropped uint64
}

func newForwarder(log *translog.Log, origin string, tell func(context.Context, forwardedLine) error, logger *slog.Logger) *forwarder {
	f := &forwarder{log: log, tell: tell, logger: logger, retry: forwardRetry, origin: origin, told: -1,
		queue: make(chan Forwarded, maxForwarding), stop: make(chan struct{}), done: make(chan struct{})}
	log.Follow(func(n int64, h tlog.Hash) {
		select {
		case f.queue <- Forwarded{Origin: origin, N: n, Hash: h}:
		default:
			f.dropped.Add(1)
		}
	})
	return f
}

// run tells what comes, until end is called. It begins with the newest checkpoint: that covers whatever was appended
// while nobody told it.
func (f *forwarder) run() {
	defer close(f.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-f.stop
		time.AfterFunc(forwardEnd, cancel)
	}()
	look := time.NewTicker(f.retry)
	defer look.Stop()
	f.checkpoint(ctx)
	for {
		select {
		case l := <-f.queue:
			f.send(ctx, l)
		case <-look.C:
			f.checkpoint(ctx)
		case <-f.stop:
			for len(f.queue) > 0 && f.send(ctx, <-f.queue) {
			}
			f.checkpoint(ctx)
			return
		}
	}
}

// end tells what waits, for a while.
func (f *forwarder) end() {
	close(f.stop)
	<-f.done
}

func (f *forwarder) checkpoint(ctx context.Context) {
	head := f.log.Head()
	if head.N != f.told && f.send(ctx, Forwarded{Origin: f.origin, Checkpoint: true, N: head.N, Hash: head.Hash}) {
		f.told = head.N
	}
}

// send sends one line, as often as it takes; once it is to stop, at most once more. It is false where the line was not sent.
func (f *forwarder) send(ctx context.Context, l Forwarded) bool {
	for last := false; ; {
		host, _ := os.Hostname()
		within, cancel := context.WithTimeout(ctx, forwardTimeout)
		err := f.tell(within, forwardedLine{l.format(time.Now(), host), f.dropped.Load()})
		cancel()
		if err == nil {
			if f.failing {
				f.logger.Info("leaves are forwarded again", "dropped", f.dropped.Load())
			}
			f.failing = false
			return true
		}
		if !f.failing {
			f.logger.Warn("leaves are not forwarded", "error", err)
			f.failing = true
		}
		if last || ctx.Err() != nil {
			return false
		}
		select {
		case <-f.stop:
			last = true
		case <-time.After(f.retry):
		}
	}
}

// A logServer is where the tracer sends lines. It connects when there is one to send.
type logServer struct {
	network string
	at      netip.AddrPort
	mu      sync.Mutex
	conn    net.Conn // nil where there is none
	sent    atomic.Uint64
	dropped atomic.Uint64
}

// parseLogServer parses syslog.to: "udp://" or "tcp://", an address and a port. Names are not looked up: the tracer has
// no files to do so.
func parseLogServer(to string) (*logServer, error) {
	network, at, ok := strings.Cut(to, "://")
	ap, err := netip.ParseAddrPort(at)
	if !ok || network != "udp" && network != "tcp" || err != nil || ap.Port() == 0 {
		return nil, fmt.Errorf("syslog.to: %q is not an address and port behind udp:// or tcp://, such as \"tcp://192.0.2.9:514\"", to)
	}
	return &logServer{network: network, at: ap}, nil
}

// send sends a line: a datagram each (RFC 5426), or with its length before it (RFC 6587, section 3.4.1).
func (s *logServer) send(ctx context.Context, l forwardedLine) error {
	s.dropped.Store(l.Dropped)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, s.network, s.at.String())
		if err != nil {
			return err
		}
		s.conn = c
		if s.network == "tcp" {
			go s.watch(c)
		}
	}
	line := l.Line
	if s.network == "tcp" {
		line = fmt.Appendf(nil, "%d %s", len(line), line)
	}
	deadline, _ := ctx.Deadline()
	s.conn.SetWriteDeadline(deadline)
	if _, err := s.conn.Write(line); err != nil {
		s.conn.Close()
		s.conn = nil
		return err
	}
	s.sent.Add(1)
	return nil
}

// watch closes a connection that the server has ended, or on which it speaks: nothing that is written to it arrives any more.
func (s *logServer) watch(c net.Conn) {
	c.Read(make([]byte, 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Close()
	if s.conn == c {
		s.conn = nil
	}
}

// The names of what a log server counts.
const (
	forwardedCount = "leaves_forwarded"
	droppedCount   = "leaves_dropped"
)

// counts are what was sent and dropped; nothing where there is no log server.
func (s *logServer) counts() []server.Count {
	if s == nil {
		return []server.Count{{Name: forwardedCount}, {Name: droppedCount}}
	}
	return []server.Count{{Name: forwardedCount, N: s.sent.Load()}, {Name: droppedCount, N: s.dropped.Load()}}
}
