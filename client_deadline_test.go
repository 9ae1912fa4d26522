package stop

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pipeDial returns a Dial whose other ends are given to handle, in a bubble's own time.
func pipeDial(handle func(net.Conn)) func(context.Context, string, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
	return func(context.Context, string, netip.AddrPort, netip.AddrPort) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			handle(theirs)
		}()
		return ours, nil
	}
}

func silent(conn net.Conn) { io.Copy(io.Discard, conn) }

func TestAskDeadline(t *testing.T) {
	host := netip.MustParseAddrPort("192.0.2.1:113")
	// A write that nobody reads ends when the client closes.
	deaf := func(conn net.Conn) { conn.Write([]byte("9")) }
	// Takes three of four seconds to close without a reply, so that the second try has one.
	slow := func(conn net.Conn) {
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, ":") {
			silent(conn)
		}
		conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		silent(conn)
	}
	drip := func(conn net.Conn) {
		bufio.NewReader(conn).ReadString('\n')
		for {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			conn.Write([]byte("9"))
		}
	}
	for _, test := range []struct {
		name    string
		handle  func(net.Conn)
		timeout time.Duration
		want    time.Duration
	}{
		{"silence", silent, 0, 10 * time.Second},
		{"silence, timeout set", silent, 4 * time.Second, 4 * time.Second},
		{"an octet a second", drip, 4 * time.Second, 4 * time.Second},
		{"the second try has no time of its own", slow, 4 * time.Second, 4 * time.Second},
		{"nobody reads", deaf, 4 * time.Second, 4 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := &Client{Timeout: test.timeout, Dial: pipeDial(test.handle)}
				got, err := c.Ask(t.Context(), host, svRec)
				if got != (Answer{}) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Ask gives %+v, %v", got, err)
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("Ask took %v, want %v", took, test.want)
				}
			})
		})
	}
}

func TestAskContext(t *testing.T) {
	host := netip.MustParseAddrPort("192.0.2.1:113")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		c := &Client{Dial: pipeDial(silent)}
		if got, err := c.Ask(ctx, host, svRec); got != (Answer{}) || !errors.Is(err, context.Canceled) {
			t.Errorf("Ask gives %+v, %v", got, err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("Ask took %v after a cancel at 1s", took)
		}
	})
}

// A due is a context whose deadline passes when it is told.
type due struct {
	context.Context
	passed chan struct{}
}

func (d due) Done() <-chan struct{} { return d.passed }

func (d due) Err() error {
	select {
	case <-d.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A deadline of a loopback connection, not of a pipe: it passes once the host has the question.
func TestAskTCPDeadline(t *testing.T) {
	ctx := due{t.Context(), make(chan struct{})}
	d := serve(t, func(conn *net.TCPConn, _ string) { close(ctx.passed); silent(conn) })
	got, err := (&Client{Timeout: time.Hour}).Ask(ctx, d.addr, svRec)
	if got != (Answer{}) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Ask gives %+v, %v", got, err)
	}
	if got := len(d.sent()); got != 1 {
		t.Errorf("%d lines were sent, want 1", got)
	}
}

// One write a question, and Dial learns where from and where to.
func TestAskWritesOnce(t *testing.T) {
	host, source := netip.MustParseAddrPort("[2001:db8::1]:113"), netip.MustParseAddr("2001:db8::2")
	type dialled struct{ Network, Local, Remote string }
	var dials []dialled
	var writes []string
	c := &Client{Source: source, Dial: func(_ context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
		dials = append(dials, dialled{network, local.String(), remote.String()})
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			io.Copy(io.Discard, theirs)
		}()
		return countingConn{ours, &writes}, nil
	}}
	if _, err := c.Ask(t.Context(), host, svRec); !errors.Is(err, ErrNoReply) {
		t.Errorf("Ask gives %v", err)
	}
	if diff := cmp.Diff([]dialled{{"tcp", "[2001:db8::2]:0", "[2001:db8::1]:113"}, {"tcp", "[2001:db8::2]:0", "[2001:db8::1]:113"}}, dials); diff != "" {
		t.Errorf("dials differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"968 , 23 : SV_REC : 92847523456\r\n", "968 , 23\r\n"}, writes); diff != "" {
		t.Errorf("writes differ (-want +got):\n%s", diff)
	}
}

// countingConn keeps each write and has no reply.
type countingConn struct {
	net.Conn
	writes *[]string
}

func (c countingConn) Write(b []byte) (int, error) {
	*c.writes = append(*c.writes, string(b))
	return c.Conn.Write(b)
}

func (c countingConn) Read([]byte) (int, error) { return 0, io.EOF }
