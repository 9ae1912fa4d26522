package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/report"
)

// throughProxy has the intruder relay through a service of b that fifty others use, who go on talking, and returns his connection, what came of a
// question about it, and who answered how many.
func (s *stage) throughProxy(start func(*stage), talks bool) (in connection, r report.Redeemed, answers map[string]int) {
	s.t.Helper()
	// On a busy machine a second is little for watching and asking.
	s.configure("timeout", `timeout = "4s"`, `timeout = "1s"`)
	start(s)
	s.listening(s.port)
	to := fmt.Sprintf("%s:%d", s.b.Host.Addr(), s.port)
	if talks {
		s.on(s.a, "mallory", "chatter", to, "1", s.word)
	} else {
		s.connect(s.port)
	}
	s.heard(s.c)
	in = s.in()
	out := s.out(s.b, s.c)
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
	for _, t := range r.Traceback {
		switch toVictim := s.of(s.c, t.Previous.Remote.Addr()); { // what the service opened itself for the others
		case toVictim && t.Asked:
			s.t.Errorf("asked %+v", t)
		case !toVictim && t.Flow == nil:
			s.t.Errorf("nothing is told of %+v", t)
		case !toVictim:
			inbound++
		}
	}
	if inbound != others+1 {
		s.t.Errorf("%d candidates", inbound)
	}
	return in, r, s.since(before)
}

const others = 50

var proxies = map[string]func(*stage){
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
}

// He alone is asked for (thesis section 4.1.2).
func TestProxyOfMany(t *testing.T) {
	for name, start := range proxies {
		t.Run(name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			in, r, answers := s.throughProxy(start, true)
			for _, tb := range r.Traceback {
				switch {
				case tb.Flow == nil:
				case tb.Previous == stop.Ends{Remote: in.remote, Local: in.local}:
					if !tb.Asked || tb.SelectedBy != "flow" || tb.Flow.Grade != stop.FlowCertain {
						t.Errorf("the intruder's: %+v, %+v", tb, tb.Flow)
					}
				case tb.Asked, tb.SelectedBy != "flow", tb.Flow.Grade != stop.FlowUnknown, !strings.Contains(tb.Error, "another connection"):
					t.Errorf("another's: %+v, %+v", tb, tb.Flow)
				}
			}
			if d := cmp.Diff(map[string]int{"a": 1, "b": 1}, answers); d != "" {
				t.Errorf("answers by host (-want +got):\n%s", d)
			}
		})
	}
}

// Where he says nothing meanwhile nothing tells, and nobody is taken for him: candidates are asked within the bound.
func TestProxyIdle(t *testing.T) {
	for name, start := range proxies {
		t.Run(name, func(t *testing.T) {
			s := theWorld(t).stage(t)
			_, r, answers := s.throughProxy(start, false)
			for _, tb := range r.Traceback {
				if tb.SelectedBy == "flow" || tb.Flow != nil && tb.Flow.Grade != stop.FlowUnknown {
					t.Errorf("told by nothing: %+v, %+v", tb, tb.Flow)
				}
			}
			if n := answers["a"] + answers["d"]; n != 8 { // traceback.max_previous
				t.Errorf("answers by host: %v", answers)
			}
		})
	}
}
