package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stopd/stopd"
)

// bound returns one bound of a server as it is now.
func (s *Server) boundOf(t *testing.T, name string) Bound {
	t.Helper()
	all, _ := s.AllCounted(t.Context())
	for _, b := range all.Bounds {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no bound %q", name)
	return Bound{}
}

// Whoever holds five thousand connections and says nothing holds as many as the bound, and keeps nobody out.
func TestThousandsOfIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Limits.Connections, cfg.Limits.ConnectionsPerSource = 1024, 128
		s := newServer(&fake{}, cfg)
		for i := range 5000 {
			time.Sleep(time.Millisecond)
			dialPipe(t, s, fmt.Sprintf("127.0.1.%d", i%200))
		}
		synctest.Wait()
		if b := s.boundOf(t, "connections"); b.Used != 1024 || b.Limit != 1024 || b.Reached != 5000-1024 {
			t.Errorf("%+v", b)
		}
		tokenIn(t, "1 , 2", once(t, s, "127.0.0.9", "1 , 2 : SV"))
		time.Sleep(cfg.Limits.Idle)
		synctest.Wait()
		if b := s.boundOf(t, "connections"); b.Used != 0 {
			t.Errorf("%d are left when all were idle for too long", b.Used)
		}
		if b := s.boundOf(t, "idle"); b.Reached != 1023 { // one made room for who asked
			t.Errorf("%d were idle for too long", b.Reached)
		}
	})
}

// Who asks and closes its side is answered; who closes its side and says nothing is gone at once.
func TestHalfClosed(t *testing.T) {
	s := newServer(&fake{}, testConfig())
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := listen(t, ctx, s)
	for _, c := range []struct{ text, want string }{
		{"1 , 2\r\n", "1 , 2 : USERID : OTHER : TOKEN"},
		{"1 , 2\r\n1 , 3", "1 , 2 : USERID : OTHER : TOKEN"},
		{"", ""}, {"1 , 2", ""},
	} {
		for range 50 {
			conn := dial(t, addr)
			if _, err := io.WriteString(conn, c.text); err != nil {
				t.Fatal(err)
			}
			conn.Conn.(*net.TCPConn).CloseWrite()
			if got := shape(conn.line()); got != c.want {
				t.Fatalf("%q is answered %q", c.text, got)
			}
			if !conn.closed() {
				t.Errorf("after %q the connection goes on", c.text)
			}
		}
	}
	cancel()
	<-served
	s.under.Wait()
	if n := s.boundOf(t, "connections").Used; n != 0 {
		t.Errorf("%d are left open", n)
	}
}

// flood asks line after line from an address on many connections, and connects again where it is hung up on, until
// the test's time is over.
func flood(t *testing.T, s *Server, from string, connections int, line func(i int) string, until time.Time) (done chan int) {
	done = make(chan int, connections)
	for k := range connections {
		go func() {
			n := 0
			for time.Now().Before(until) {
				ours, theirs := net.Pipe()
				end := pipeEnd{Conn: theirs, local: netip.MustParseAddr("127.0.0.1"), remote: netip.MustParseAddr(from)}
				s.under.Go(func() { s.serve(t.Context(), end) })
				go func() {
					for i := k; time.Now().Before(until); i += connections {
						if _, err := io.WriteString(ours, line(i)+"\r\n"); err != nil {
							return
						}
					}
					ours.Close()
				}()
				b := make([]byte, 4096)
				for {
					m, err := ours.Read(b)
					if err != nil {
						break
					}
					n += strings.Count(string(b[:m]), "\n")
				}
				ours.Close()
				time.Sleep(time.Millisecond)
			}
			done <- n
		}()
	}
	return done
}

// Requests at full speed from one prefix do not keep another from being served in time; from the victim's own address
// they do not keep the victim's own question from being answered and followed.
func TestFlood(t *testing.T) {
	const slot, work, lasts = 20 * time.Millisecond, 5 * time.Millisecond, time.Second
	for _, c := range []struct {
		name, flooder, asker string
		tries                int // one address has its connections in common
	}{
		{"from elsewhere", "192.0.2.66", "127.0.0.9", 1},
		{"from another IPv6 network", "2001:db8:66::1", "2001:db8:9::1", 1},
		{"from the victim's address", "127.0.0.9", "127.0.0.9", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				real := func(q stop.Question) bool { return q.Local.Port() == 1000 }
				f := &fake{find: func(q stop.Question) error {
					if real(q) || q.Local.Port()%2 == 0 {
						return nil
					}
					return stop.ErrNoUser
				}, examine: func(stop.Question) error { time.Sleep(work); return nil }}
				f.previous = func() []stop.Previous { return []stop.Previous{candidate("192.0.2.7:616", "127.0.0.1:22")} }
				cfg := testConfig()
				cfg.Slots = Slots{5 * time.Millisecond, slot, slot, slot}
				cfg.Traceback.To = nil // who would be asked is on record
				cfg.Limits = Limits{Connections: 256, ConnectionsPerSource: 32, RequestsPerConn: 100, Idle: 30 * time.Second, Lookups: 16,
					PerSourcePerSecond: 200, Burst: 400, PerUserPerSecond: 50, UserBurst: 200, AskersPerSID: 64, Table: 4096, Over: OverDecoy}
				s := newServer(f, cfg)
				types := []string{"", " : SV", " : SV_REC : 5", " : ID : 192.0.2.1", " : ID_REC : 9"}
				done := flood(t, s, c.flooder, 64, func(i int) string { return fmt.Sprintf("%d , %d%s", i%999+1, i%7+1, types[i%len(types)]) }, time.Now().Add(lasts))
				time.Sleep(lasts / 2)
				for i := range 5 {
					line := fmt.Sprintf("1000 , %d : SV_REC : 77", 5000+i)
					ports, _, _ := strings.Cut(line, " : ")
					var start time.Time
					reply, tries := "", 0
					for reply == "" && tries < c.tries {
						if tries > 0 {
							time.Sleep(3 * time.Millisecond) // or all tries meet the same moment
						}
						start = time.Now()
						reply = once(t, s, c.asker, line)
						tries++
					}
					if reply == "" {
						t.Errorf("no reply after %d tries", tries)
						continue
					}
					token := tokenIn(t, ports, reply)
					if took := time.Since(start); took > 2*slot {
						t.Errorf("answered after %s", took)
					}
					defer func() {
						if r, ok := f.lastKept(token); !ok || len(r) != 1 || r[0].Previous.Remote.Port() != 616 {
							t.Errorf("%s was not followed: %+v", ports, r)
						}
					}()
				}
				n := 0
				for range 64 {
					n += <-done
				}
				s.finish(t)
				if n < 1000 || s.boundOf(t, "per_source_per_second").Reached == 0 {
					t.Errorf("%d answers, none over a bound: this shows nothing", n)
				}
				all, _ := s.AllCounted(t.Context())
				for _, b := range all.Bounds {
					if b.Used > b.Limit && b.Name != "connections" || b.Used > 2*b.Limit {
						t.Errorf("%+v", b)
					}
				}
			})
		})
	}
}

// Every bound that a request can meet counts that it was met.
func TestBoundsAreCounted(t *testing.T) {
	const from = "127.0.0.9"
	lines := func(ls ...string) func(*testing.T, *Server) {
		return func(t *testing.T, s *Server) {
			for _, l := range ls {
				once(t, s, from, l)
			}
		}
	}
	for name, c := range map[string]struct {
		limit func(*Config)
		do    func(*testing.T, *Server)
	}{
		"requests_per_connection": {func(c *Config) { c.Limits.RequestsPerConn = 1 }, lines("1,2")},
		"line":                    {func(*Config) {}, lines(strings.Repeat("1", 1100))},
		"per_source_per_second":   {func(c *Config) { c.Limits.Burst = 1 }, lines("1,2", "1,2")},
		"per_user_per_second":     {func(c *Config) { c.Limits.UserBurst = 1 }, lines("1,2:SV", "1,3:SV")},
		"sources": {func(c *Config) { c.Limits.Table = 1 }, func(t *testing.T, s *Server) {
			once(t, s, from, "1,2")
			once(t, s, "127.0.0.8", "1,2")
		}},
		"askers_per_sid": {func(c *Config) { c.Limits.AskersPerSID = 1 }, func(t *testing.T, s *Server) {
			once(t, s, from, "1,2:SV_REC:7")
			once(t, s, "127.0.0.8", "1,2:SV_REC:7")
		}},
		"sids":                 {func(c *Config) { c.Limits.Table = 8 }, manySIDs},
		"duplicates":           {func(c *Config) { c.Limits.Table = 8 }, manySIDs},
		"asked_connections":    {func(c *Config) { c.Limits.Table = 8 }, manySIDs},
		"followed_connections": {func(c *Config) { c.Limits.Table = 8 }, manySIDs},
		"promises":             {func(c *Config) { c.Limits.Table = 8 }, lines("1,2:SV_REC:1", "1,2:SV_REC:2")},
		"max_previous":         {func(c *Config) { c.Traceback.MaxPrevious = 1 }, lines("1,2:SV_REC:1")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				cfg.Traceback.Port = 1
				cfg.Limits.PerSourcePerSecond, cfg.Limits.PerUserPerSecond = 1e-6, 1e-6
				c.limit(cfg)
				f := &fake{previous: func() []stop.Previous {
					return []stop.Previous{candidate("127.0.0.1:616", "127.0.0.1:22"), candidate("127.0.0.1:617", "127.0.0.1:22")}
				}}
				s := newServer(f, cfg)
				if b := s.boundOf(t, name); b.Reached != 0 {
					t.Fatalf("before: %+v", b)
				}
				c.do(t, s)
				s.settle()
				if b := s.boundOf(t, name); b.Reached == 0 {
					t.Errorf("%+v", b)
				}
				s.finish(t)
			})
		})
	}
}

func manySIDs(t *testing.T, s *Server) {
	for i := range 20 {
		once(t, s, "127.0.0.9", fmt.Sprintf("1 , %d : SV_REC : %d", i+1, i))
		time.Sleep(recordAfter(s.config.Load(), stop.SVRec)) // its promise is kept
	}
}
