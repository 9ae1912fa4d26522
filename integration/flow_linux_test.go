package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stopd/stopd"
)

// Fifty others use the service that the intruder relays by, and he alone is asked for (thesis section 4.1.2).
func TestProxyOfMany(t *testing.T) {
	for name, start := range map[string]func(*stage){
		"haproxy": func(s *stage) {
			s.must(s.b.Host.WriteFile("/etc/haproxy/flow.cfg", fmt.Appendf(nil, `global
  maxconn 1000
defaults
  mode tcp
  timeout connect 10s
  timeout client 10m
  timeout server 10m
listen relay
  bind :%d
  server victim %s:%d
`, s.port, s.c.Host.Addr(), victimPort), 0o644, "root"))
			s.daemonOnB("haproxy", "-db", "-f", "/etc/haproxy/flow.cfg")
		},
		"a loop": func(s *stage) {
			s.on(s.b, "www", "proxy", fmt.Sprint(s.port), fmt.Sprintf("%s:%d", s.c.Host.Addr(), victimPort))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			const others = 50
			start(s)
			s.listening(s.port)
			to := fmt.Sprintf("%s:%d", s.b.Host.Addr(), s.port)
			s.on(s.a, "mallory", "chatter", to, "1", s.word)
			s.heard(s.c)
			in, out := s.in(), s.out(s.b, s.c)
			s.on(s.d, "mallory", "chatter", to, fmt.Sprint(others))
			s.wait("wait for the others", func() (bool, error) {
				cs, err := connections(s.ctx, s.b.Host)
				n := 0
				for _, c := range cs {
					if s.of(s.c, c.remote.Addr()) && c.remote.Port() == victimPort {
						n++
					}
				}
				return n == others+1, err
			})
			before := s.answered()
			token := s.request(s.c, "SV_REC", out)
			_, r, err := s.b.Traced(s.ctx, token)
			s.must(err)
			inbound := 0
			for _, tb := range r.Traceback {
				if s.of(s.c, tb.Previous.Remote.Addr()) { // what the service opened itself for the others
					if tb.Asked {
						t.Errorf("asked %+v", tb)
					}
					continue
				}
				inbound++
				isMallory := tb.Previous == stop.Ends{Remote: in.remote, Local: in.local}
				switch {
				case tb.Asked != isMallory, tb.SelectedBy != "flow", tb.Flow == nil, isMallory && tb.Flow.Grade != stop.FlowCertain,
					!isMallory && (tb.Flow.Grade != stop.FlowUnknown || !strings.Contains(tb.Error, "another connection")):
					t.Errorf("the intruder's is %v: %+v, %+v", in.remote, tb, tb.Flow)
				}
			}
			if inbound != others+1 {
				t.Errorf("%d candidates", inbound)
			}
			if more := s.since(before); more["b"] != 1 || more["a"] != 1 || len(more) != 2 {
				t.Errorf("answers by host: %v", more)
			}
		})
	}
}
