package integration

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stopd/stopd/internal/netlab"
)

// The host is busy with what has nothing to do with the intruder: 5,000 processes, and 20,000 connections.
func TestBusyHost(t *testing.T) {
	const processesOf, each, clients = 5000, 4, 4
	w := theWorld(t)
	w.crowd(t, processesOf, each, clients)
	scenario(t, "SV_REC", func(s *stage) trail {
		s.script("nc.traditional -l -p %d | nc.traditional %s %d", s.port, s.c.Host.Addr(), victimPort)
		s.connect(s.port)
		tr := s.through("nc.traditional", "nc.traditional")
		start := time.Now()
		_, r, err := s.b.Redeem(s.ctx, s.request(s.c, "SV", tr.out))
		s.must(err)
		s.t.Logf("asked and redeemed in %s", time.Since(start).Round(time.Millisecond))
		if hasGap(r.Report.Gaps, "deadline") {
			s.t.Errorf("not found within the deadline: %v", r.Report.Gaps)
		}
		return tr
	})
}

// crowd starts a service on b whose processes hold connections with g, until the test ends. Its clients are in
// a few processes, so that none needs too many descriptors.
func (w *world) crowd(t *testing.T, processes, each, clients int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	const port = 6000
	start := func(h *netlab.Host, name string, args ...string) {
		d, err := h.StartAs("web", name, args...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	// Those that it has forked are ended before it: clean-ups run from the last.
	start(w.b.Host, "crowd", strconv.Itoa(port), strconv.Itoa(processes), strconv.Itoa(each))
	t.Cleanup(func() {
		if _, err := w.b.Host.Run(context.Background(), "pkill", "-KILL", "-U", "web", "-x", "crowd"); err != nil {
			t.Error(err)
		}
	})
	if err := w.b.Host.WaitListen(ctx, port); err != nil {
		t.Fatal(err)
	}
	for range clients {
		start(w.g.Host, "clients", fmt.Sprintf("b:%d:%d", port, processes*each/clients))
	}
	// Each of them closes the listener once it has all of its connections.
	var listeners, connected []byte
	err := netlab.WaitFor(ctx, func() (bool, error) {
		var err error
		if listeners, err = w.b.Host.Run(ctx, "ss", "-tlnH", "sport", "=", strconv.Itoa(port)); err != nil || len(listeners) > 0 {
			return false, err
		}
		connected, err = w.b.Host.Run(ctx, "ss", "-tnH", "state", "established", "sport", "=", strconv.Itoa(port))
		return true, err
	})
	if n := strings.Count(string(connected), "\n"); err != nil || n != processes*each {
		t.Fatalf("%d connections, want %d; %v; listeners are %q", n, processes*each, err, listeners)
	}
	out, err := w.b.Host.Run(ctx, "pgrep", "-c", "-U", "web", "-x", "crowd")
	if n := strings.TrimSpace(string(out)); err != nil || n != strconv.Itoa(processes+1) {
		t.Fatalf("%s processes, want %d; %v", n, processes+1, err)
	}
}
