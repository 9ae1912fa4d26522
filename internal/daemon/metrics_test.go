package daemon

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/server"
)

func newServer() *server.Server {
	c := serverConfig(Defaults())
	c.Logger = slog.New(slog.DiscardHandler)
	return server.New(answerer{}, server.NewTracebacks(nil, c), c)
}

// testMetrics are a server's, beside a tracer without a log server.
func testMetrics(s *server.Server) metrics {
	return metrics{func(ctx context.Context) (server.Counted, error) {
		c, err := s.AllCounted(ctx)
		return c.And(server.Counted{Counts: (*logServer)(nil).counts()}), err
	}, time.Unix(1800000000, 0), func(context.Context) (*recorded, error) { return &numbers, nil }}
}

// Every counter is a metric, and its own; what both halves count is added up.
func TestEveryCounterIsAMetric(t *testing.T) {
	both := [2]*server.Counters{{}, {}}
	for _, c := range both {
		v := reflect.ValueOf(c).Elem()
		for i := range v.NumField() {
			v.Field(i).Addr().Interface().(*atomic.Uint64).Store(uint64(i + 1))
		}
	}
	sum := server.Counted{Counts: both[0].Counts()}.And(server.Counted{Counts: both[1].Counts()})
	seen := map[uint64]bool{}
	for _, n := range sum.Counts {
		if n.N == 0 || n.N%2 != 0 || seen[n.N] {
			t.Errorf("%s is not the sum, or another's", n.Name)
		}
		seen[n.N] = true
		if counters[n.Name] == nil {
			t.Errorf("%s is no metric", n.Name)
		}
	}
	if n := reflect.TypeFor[server.Counters]().NumField(); len(seen) != n || len(counters) != n+len((*logServer)(nil).counts()) {
		t.Errorf("%d are told of, %d are metrics, and there are %d", len(seen), len(counters), n)
	}
	problems, err := testutil.CollectAndLint(testMetrics(newServer()))
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// What is done at each bound is said in stopd(8), for every one, in their order.
func TestManualHasEveryBound(t *testing.T) {
	b, err := os.ReadFile("../../man/stopd.8")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), ".Sh METRICS")
	text, _, _ = strings.Cut(text, "\n.Sh ")
	var manual, bounds []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (\w+)$`).FindAllStringSubmatch(text, -1) {
		manual = append(manual, m[1])
	}
	all, _ := newServer().AllCounted(t.Context())
	for _, b := range all.Bounds {
		bounds = append(bounds, b.Name)
	}
	bounds = append(bounds, "translated_connections") // the collector's
	if d := cmp.Diff(bounds, manual); d != "" {
		t.Errorf("bounds of the server (-) and of the manual (+):\n%s", d)
	}
}

func TestServeMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	defer prom.Serve(l, testMetrics(newServer()), slog.New(slog.DiscardHandler))()
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	for _, want := range []string{"\nstopd_requests_total 0\n", "\nstopd_bound_limit{bound=\"lookups\"} 64\n", "\nstopd_bound_reached_total{bound=\"idle\"} 0\n", "\nstopd_asked_total 0\n", "\nstopd_bound_limit{bound=\"tracebacks\"} 64\n", "\nstopd_leaves_dropped_total 0\n",
		"_lost_events_total Events of connections and processes that were lost: no room, skipped by the kernel, or found to be missing.\n",
		"\nstopd_recorder_running 1\n", "\nstopd_recorder_start_time_seconds 1e+09\n", "\nstopd_recorder_lost_events_total 1\n", "\nstopd_recorder_entries{of=\"connections\"} 2\n",
		"\nstopd_recorder_entries{of=\"processes\"} 3\n", "\nstopd_recorder_entries_limit 4\n", "\nstopd_start_time_seconds 1.8e+09\n", "\ngo_goroutines "} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s: %v", want, text, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// No user of the host can take the daemon's descriptors by them.
	var open []net.Conn
	closed := 0
	for range 2 * prom.Connections {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	done := make(chan bool, len(open))
	for _, c := range open {
		go func() {
			_, err := bufio.NewReader(c).ReadByte()
			done <- err != nil
		}()
	}
	for range prom.Connections - 1 { // the connection of before may not have gone yet
		if <-done {
			closed++
		}
	}
	if closed < prom.Connections-1 {
		t.Errorf("%d of %d were closed", closed, len(open))
	}
}
