package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// A wire is a connection between two simulated hosts, which the first has opened.
type wire struct {
	from, to int
	ends     stop.Ends // as the second has it: Remote is the first's
}

// A simulated host takes all its inbound connections to lead to whatever is asked, as the thesis does where nothing
// tells more (section 4.1.2).
type simulated struct {
	fake
	in, out []wire
}

func (h *simulated) Find(_ context.Context, q stop.Question) (stop.Connection, error) {
	for _, w := range h.out {
		if w.ends.Remote == q.Local && w.ends.Local == q.Remote {
			return between(q.Local, q.Remote, 1000), nil
		}
	}
	return stop.Connection{}, stop.ErrNoUser
}

func (h *simulated) previously() (ps []stop.Previous) {
	for _, w := range h.in {
		ps = append(ps, stop.Previous{Ends: w.ends, Reasons: []string{"inbound"}, Corroborated: true})
	}
	return ps
}

// A web is simulated hosts with connections at random, loops among them, at one port on loopback.
type web struct {
	hosts   []*simulated
	servers []*Server
	wires   []wire
	port    uint16
}

func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 113, 0, byte(i + 1)}) }

func newWeb(t *testing.T, r *rand.Rand, hosts, wires int) *web {
	t.Helper()
	w := &web{}
	for range hosts {
		h := &simulated{fake: fake{uid: 1000}}
		h.previous = h.previously
		w.hosts = append(w.hosts, h)
	}
	for i := range wires {
		from := r.IntN(hosts)
		to := (from + 1 + r.IntN(hosts-1)) % hosts
		if i%4 == 0 {
			to = (from + 1) % min(hosts, 10) // some have many
		}
		if from == to {
			continue
		}
		c := wire{from, to, stop.Ends{Remote: netip.AddrPortFrom(hostAddr(from), uint16(20000+i)), Local: netip.AddrPortFrom(hostAddr(to), 22)}}
		w.wires = append(w.wires, c)
		w.hosts[from].out, w.hosts[to].in = append(w.hosts[from].out, c), append(w.hosts[to].in, c)
	}
	for i, h := range w.hosts {
		l, err := net.Listen("tcp", netip.AddrPortFrom(hostAddr(i), w.port).String())
		if err != nil {
			t.Skipf("listen on all of loopback: %v", err) // Linux has it
		}
		w.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
		cfg := testConfig()
		cfg.Traceback.Port, cfg.Traceback.Timeout, cfg.Traceback.Window, cfg.Traceback.Parallel = w.port, time.Minute, time.Hour, 64
		cfg.Limits.Lookups, cfg.Limits.AskersPerSID, cfg.Limits.Connections = 64, 64, 1024
		cfg.Limits.PerSourcePerSecond, cfg.Limits.Burst, cfg.Limits.PerUserPerSecond, cfg.Limits.UserBurst = 1e6, 1e6, 1e6, 1e6
		s := newServer(h, cfg)
		w.servers = append(w.servers, s)
		ctx, cancel := context.WithCancel(context.Background())
		var under sync.WaitGroup
		under.Go(func() { s.Serve(ctx, l) })
		t.Cleanup(func() { cancel(); under.Wait(); s.Wait(context.Background()); s.tracing().Wait(context.Background()) })
	}
	return w
}

// ask asks the host that opened a connection about it, as the other would.
func (w *web) ask(t *testing.T, c wire, typ stop.Type, sid uint64) {
	t.Helper()
	client := stop.Client{Source: c.ends.Local.Addr(), Timeout: time.Minute}
	r := stop.Request{Local: uint64(c.ends.Remote.Port()), Remote: uint64(c.ends.Local.Port()), Type: typ, SID: sid}
	a, err := client.Ask(t.Context(), netip.AddrPortFrom(c.ends.Remote.Addr(), w.port), r)
	if err != nil || a.Kind != stop.KindToken {
		t.Fatalf("ask about %v: %q, %v", c.ends, a.Line, err)
	}
}

// questions counts all that were asked, and tells whether some are under way.
func (w *web) questions() (n int, quiet bool) {
	quiet = true
	for _, s := range w.servers {
		if s.conns.bound(0, 0).Used > 0 || s.tracing().begun.bound("").Used > 0 {
			quiet = false
		}
		n += int(s.Counters.Requests.Load())
	}
	return n, quiet
}

// settled waits until no question is under way, and returns how many there were.
func (w *web) settled(t *testing.T) int {
	t.Helper()
	for last, calm := -1, 0; ; {
		n, quiet := w.questions()
		if quiet && n == last {
			if calm++; calm == 3 {
				return n
			}
		} else {
			calm = 0
		}
		last = n
		select {
		case <-t.Context().Done():
			t.Fatal("the questions do not end")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// reached returns the connections that a trace-back from some comes to.
func (w *web) reached(from []wire, most int) map[stop.Ends]bool {
	seen := map[stop.Ends]bool{}
	for len(from) > 0 {
		c := from[0]
		from = from[1:]
		if seen[c.ends] {
			continue
		}
		seen[c.ends] = true
		in := w.hosts[c.from].in
		from = append(from, in[:min(most, len(in))]...)
	}
	return seen
}

// However the hosts are connected, and however many ask with however many session numbers, a connection leads to no
// more than max_previous questions in a window and type; and every host that the connections lead back to is asked.
func TestAvalanche(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 113))
			w := newWeb(t, r, 100, 300)
			most := w.servers[0].config.Load().Traceback.MaxPrevious
			var asked []wire
			own := 0
			for i := range 5 {
				c := w.wires[r.IntN(len(w.wires))]
				asked = append(asked, c)
				for sid := range uint64(4) {
					w.ask(t, c, stop.SVRec, 100*uint64(i)+sid)
					own++
				}
			}
			n := w.settled(t) - own
			seen := w.reached(asked, most)
			bound := most * len(seen)
			if n > bound || n == 0 {
				t.Errorf("%d questions between hosts, for %d connections: more than %d, or none", n, len(seen), bound)
			}
			t.Logf("%d connections, %d reached; %d questions of at most %d", len(w.wires), len(seen), n, bound)
			for ends := range seen {
				if !w.examined(ends) {
					t.Errorf("nobody asked about %v, which leads back from what was asked", ends)
				}
			}
			// The same again costs nobody but the one who is asked, for as long as the window lasts.
			for i, c := range asked {
				w.ask(t, c, stop.SVRec, 7000+uint64(i))
				own++
			}
			if again := w.settled(t) - own; again != n {
				t.Errorf("new session numbers set off %d questions more", again-n)
			}
			// Names are followed apart from reports.
			w.ask(t, asked[0], stop.IDRec, 8000)
			own++
			names := w.settled(t) - own - n
			if bound := most * len(w.reached(asked[:1], most)); names > bound || names == 0 {
				t.Errorf("%d questions for names, at most %d", names, bound)
			}
		})
	}
}

// examined reports whether the host that opened a connection was asked about it and looked.
func (w *web) examined(e stop.Ends) bool {
	for _, h := range w.hosts {
		h.mu.Lock()
		for _, q := range h.fake.examined {
			if q.Local == e.Remote && q.Remote == e.Local {
				h.mu.Unlock()
				return true
			}
		}
		h.mu.Unlock()
	}
	return false
}
