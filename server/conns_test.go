package server

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
