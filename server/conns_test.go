package server

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

// Who has just connected and not said anything does not make room for the next, as long as somebody has been idle for longer.
func TestNewcomersAreNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.Connections = 2
		s := newServer(&fake{}, cfg)
		dial := func() *client {
			c := dialPipe(t, s, "127.0.0.9")
			synctest.Wait()
			return c
		}
		made := func(who string, c *client) {
			t.Helper()
			start := time.Now()
			if !c.closed() || time.Since(start) > 0 { // or it would have been closed for its idle time
				t.Errorf("%s made no room", who)
			}
		}
		answered := dial()
		tokenIn(t, "1 , 2", answered.ask("1 , 2\r\n"))
		young := dial()
		time.Sleep(999 * time.Millisecond)
		tokenIn(t, "1 , 3", answered.ask("1 , 3\r\n")) // so it is idle for less long than the newcomer
		synctest.Wait()
		next := dial()
		made("the one that had an answer", answered)
		time.Sleep(time.Millisecond)
		tokenIn(t, "1 , 2", young.ask("1 , 2\r\n"))
		time.Sleep(time.Second)
		dial()
		made("a newcomer of a second ago", next)
	})
}

// Some programs read once.
func TestReplyIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(&fake{}, testConfig())
		c := dialPipe(t, s, "127.0.0.9")
		for _, line := range []string{"1 , 2\r\n", "0 , 2\r\n", "rubbish\r\n"} {
			if _, err := io.WriteString(c, line); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1000)
			if n, err := c.Read(b); err != nil || !strings.HasSuffix(string(b[:n]), "\r\n") {
				t.Errorf("the first read of the reply to %q gives %q, %v", line, b[:n], err)
			}
		}
	})
}

func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.Connections, cfg.Limits.ConnectionsPerSource = 3, 2
		gate := make(chan struct{})
		s := newServer(&fake{examine: func(stop.Question) error { <-gate; return nil }}, cfg)
		dial := func(from string) *client {
			time.Sleep(time.Second)
			c := dialPipe(t, s, from)
			synctest.Wait()
			return c
		}
		busy := dial("127.0.0.1")
		io.WriteString(busy, "1 , 2 : SV\r\n")
		old := dial("127.0.0.1")
		next := dial("127.0.0.1") // the source's bound: its idle one goes
		if !old.closed() {
			t.Error("the oldest idle connection of the source goes on")
		}
		other := dial("127.0.0.2")
		last := dial("127.0.0.3") // the bound of all: the one idle longest goes
		if !next.closed() {
			t.Error("the oldest idle connection goes on")
		}
		if got := s.Counters.Evicted.Load(); got != 2 {
			t.Errorf("%d evicted", got)
		}
		for _, c := range []*client{other, last} {
			io.WriteString(c, "1 , 2 : SV\r\n")
		}
		synctest.Wait()
		// All are at work: the oldest end with their replies, as many as the bound. Then newcomers are refused.
		var late []*client
		for i := range 3 {
			late = append(late, dial(fmt.Sprintf("127.0.0.%d", 10+i)))
			io.WriteString(late[i], "1 , 2 : SV\r\n")
			synctest.Wait()
		}
		if got := s.Counters.Evicted.Load(); got != 5 {
			t.Errorf("%d evicted", got)
		}
		if one := dial("127.0.0.20"); !one.closed() {
			t.Error("more than twice the bound")
		}
		if got := s.Counters.Refused.Load(); got != 1 {
			t.Errorf("%d refused", got)
		}
		close(gate)
		for _, c := range []*client{busy, other, last} {
			tokenIn(t, "1 , 2", c.line())
			if !c.closed() {
				t.Error("a connection that made room goes on after its reply")
			}
			c.Close()
		}
		for _, c := range late {
			tokenIn(t, "1 , 2", c.line())
			tokenIn(t, "1 , 3", c.ask("1 , 3\r\n"))
			c.Close()
		}
		s.under.Wait()
		if len(s.conns.open) != 0 || len(s.conns.bySource) != 0 || s.conns.staying != 0 {
			t.Errorf("%d connections are still counted", len(s.conns.open))
		}
	})
}
