package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/netlab/site"
)

// TestPooledBackends: a proxy that keeps its connections to the backend, and gives each to whoever of its clients asks for something next, has nobody
// taken for the one who is behind one of them: neither who was first and has left, nor who talks at the moment.
func TestPooledBackends(t *testing.T) {
	s := theWorld(t).stage(t)
	s.busy = true // clients come and go
	s.on(s.c, "mallory", "sh", "-c", fmt.Sprintf("exec python3 -m http.server -d / --protocol HTTP/1.1 %d 2>/dev/null", s.port+1))
	s.must(s.c.Host.WaitListen(s.ctx, s.port+1))
	s.configured("haproxy", "-db", "-f", `global
  nbthread 1
  tune.idle-pool.shared on
defaults
  mode http
  http-reuse always
  timeout connect 10s
  timeout client 10m
  timeout server 10m
listen relay
  bind :%d
  server victim %s:%d pool-purge-delay 10m
`)
	s.listening(s.port)
	to := fmt.Sprintf("b:%d", s.port)
	fetched := func(at *site.Site) {
		_, err := at.Host.RunAs(s.ctx, "mallory", "fetch", to, "1", "1")
		s.must(err)
		s.wait("wait for the client to be gone", func() (bool, error) { return len(s.pooled(s.port)) == 0, nil })
	}

	fetched(s.d)
	kept := s.pooled(s.port + 1)
	fetched(s.a)
	if again := s.pooled(s.port + 1); len(kept) != 1 || len(again) != 1 || kept[0].local != again[0].local {
		t.Fatalf("the proxy has %v, then %v to its backend", kept, again)
	}
	both := []netip.Addr{s.a.Host.Addr(), s.d.Host.Addr()}
	if hosts := s.namedFor(kept[0]); !slices.Equal(hosts, both) {
		t.Errorf("of those who have left %v are named, not %v", hosts, both)
	}

	s.on(s.d, "mallory", "fetch", to, "3", "0")
	s.on(s.a, "mallory", "fetch", to, "3", "0")
	s.wait("wait for all to be there", func() (bool, error) { return len(s.pooled(s.port)) == 6, nil })
	for i := range 6 {
		backends := s.pooled(s.port + 1)
		if len(backends) == 0 {
			t.Fatal("the proxy has none to its backend")
		}
		if hosts := s.namedFor(backends[i%len(backends)]); !slices.Equal(hosts, both) {
			t.Errorf("of those who are there %v are named, not %v", hosts, both)
		}
	}
}

// pooled are b's connections with others of which one port is given.
func (s *stage) pooled(port uint16) []connection {
	s.t.Helper()
	cs, err := connections(s.ctx, s.b.Host)
	s.must(err)
	return slices.DeleteFunc(cs, func(c connection) bool { return c.local.Port() != port && c.remote.Port() != port })
}

// namedFor are the hosts that are named for a connection of b's since they came to b, in order, of which none may be certain, and none alone be asked.
func (s *stage) namedFor(c connection) (hosts []netip.Addr) {
	s.t.Helper()
	r := s.askedOver("SV_REC", c)
	if asked := askedOf(r); len(asked) == 1 {
		s.t.Errorf("%v alone is asked", asked)
	}
	for _, tb := range r.Traceback {
		if tb.Flow != nil && tb.Flow.Grade == stop.FlowCertain {
			s.t.Errorf("%v is certain: %+v", tb.Previous, tb.Flow)
		}
	}
	for _, p := range r.Report.Previous {
		if p.Direction == host.Inbound {
			hosts = append(hosts, p.Remote.Addr())
		}
	}
	slices.SortFunc(hosts, netip.Addr.Compare)
	return slices.Compact(hosts)
}
