package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/internal/netlab"
)

func newLogKey(t testing.TB) translog.Key {
	t.Helper()
	text, err := translog.GenerateKey("host.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newLog is an empty log.
func newLog(t *testing.T) *translog.Log {
	t.Helper()
	key := newLogKey(t)
	dir := filepath.Join(t.TempDir(), "log")
	if err := translog.Create(dir, key); err != nil {
		t.Fatal(err)
	}
	l, err := translog.Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A log server that is away delays nobody: what does not fit is counted, and covered by the checkpoint that comes when it is back.
func TestForwarder(t *testing.T) {
	log := newLog(t)
	var said bytes.Buffer
	back, failed := make(chan struct{}), make(chan struct{}, 1)
	told := make(chan forwardedLine, 2*maxForwarding)
	f := newForwarder(log, "host.example/stopd/1", func(ctx context.Context, l forwardedLine) error {
		select {
		case <-back:
			told <- l
			return nil
		default:
			select {
			case failed <- struct{}{}:
			default:
			}
			return errors.New("nobody there")
		}
	}, slog.New(slog.NewTextHandler(&said, nil)))
	f.retry = time.Millisecond
	go f.run()
	<-failed
	const extra = 10
	for n := range maxForwarding + extra {
		if err := log.Append([]translog.Leaf{{Time: time.Unix(int64(n), 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	close(back)
	f.end()
	close(told)
	var leaves []int64
	var checkpoint Forwarded // the last
	var dropped uint64
	for l := range told {
		p, ok := ParseForwarded(l.Line)
		if !ok || p.Origin != "host.example/stopd/1" {
			t.Fatalf("told %q", l.Line)
		}
		if !p.Checkpoint {
			leaves = append(leaves, p.N)
			leaf := translog.Leaf{Time: time.Unix(p.N, 0)}
			if p.Hash != tlog.RecordHash(leaf.Append(nil)) {
				t.Errorf("leaf %d is told with another hash", p.N)
			}
		}
		if dropped = l.Dropped; p.Checkpoint {
			checkpoint = p
		}
	}
	// One may have been taken from the queue before it was full.
	if n := uint64(len(leaves)); !slices.IsSorted(leaves) || n < maxForwarding || dropped == 0 || n+dropped != maxForwarding+extra {
		t.Errorf("%d leaves are told, %d dropped", n, dropped)
	}
	if checkpoint.N != maxForwarding+extra || checkpoint.Hash != log.Head().Hash {
		t.Errorf("the last checkpoint is %+v", checkpoint)
	}
	if got := said.String(); strings.Count(got, "leaves are not forwarded") != 1 || strings.Count(got, "leaves are forwarded again") != 1 {
		t.Errorf("the log has %q", got)
	}
}

// The daemon ends although the log server never answers.
func TestForwarderEnds(t *testing.T) {
	log := newLog(t)
	synctest.Test(t, func(t *testing.T) {
		silent := func(ctx context.Context, _ forwardedLine) error { <-ctx.Done(); return ctx.Err() }
		f := newForwarder(log, "o", silent, slog.New(slog.DiscardHandler))
		go f.run()
		synctest.Wait()
		begun := time.Now()
		f.end()
		if took := time.Since(begun); took != forwardEnd {
			t.Errorf("it took %s", took)
		}
	})
}

func TestLogServer(t *testing.T) {
	for _, bad := range []string{"udp", "192.0.2.9:514", "udp://log.example:514", "udp://192.0.2.9", "udp://192.0.2.9:0", "tls://192.0.2.9:6514", "unix:///dev/log"} {
		if _, err := parseLogServer(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
	send := func(s *logServer, line string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return s.send(ctx, forwardedLine{[]byte(line), 3})
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s, err := parseLogServer("udp://" + u.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := send(s, "one"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, _, err := u.ReadFrom(b); err != nil || string(b[:n]) != "one" {
		t.Errorf("%q, %v", b[:n], err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if s, err = parseLogServer("tcp://" + l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	// A server that ends a connection gets another one.
	for range 2 {
		if err := send(s, "two"); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != "3 two" {
			t.Errorf("%q, %v", b[:n], err)
		}
		c.Close()
		if err := netlab.WaitFor(t.Context(), func() (bool, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.conn == nil, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.counts(); got[0].N != 2 || got[1].N != 3 {
		t.Errorf("counted: %+v", got)
	}
	l.Close()
	if err := send(s, "three"); err == nil {
		t.Error("nobody listens, and it is sent")
	}
}
