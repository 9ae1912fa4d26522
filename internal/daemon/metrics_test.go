package daemon

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/stopd/stopd/server"
)

func newServer() *server.Server {
	c := serverConfig(Defaults())
	c.Logger = slog.New(slog.DiscardHandler)
	return server.New(answerer{}, c)
}

// testMetrics are a server's, beside a tracer that has sent 7 lines and dropped 2.
func testMetrics(s *server.Server) *metrics {
	return &metrics{s, time.Unix(1800000000, 0), func() (forwardedCount, error) { return forwardedCount{7, 2}, nil }}
}

// Every counter of the server is a metric, and its own.
func TestEveryCounterIsAMetric(t *testing.T) {
	s := newServer()
	c := reflect.ValueOf(&s.Counters).Elem()
	for i, m := range counters {
		m.of(&s.Counters).Add(uint64(i + 1))
	}
	seen := map[uint64]bool{}
	for i := range c.NumField() {
		n := c.Field(i).Addr().Interface().(interface{ Load() uint64 }).Load()
		if n == 0 || seen[n] {
			t.Errorf("%s is no metric, or another's", c.Type().Field(i).Name)
		}
		seen[n] = true
	}
	problems, err := testutil.CollectAndLint(testMetrics(s))
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
	for _, b := range newServer().Bounds() {
		bounds = append(bounds, b.Name)
	}
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
	defer serveMetrics(l, testMetrics(newServer()), slog.New(slog.DiscardHandler))()
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	for _, want := range []string{"\nstopd_requests_total 0\n", "\nstopd_bound_limit{bound=\"lookups\"} 64\n", "\nstopd_bound_reached_total{bound=\"idle\"} 0\n", "\nstopd_start_time_seconds 1.8e+09\n",
		"\nstopd_leaves_forwarded_total 7\n", "\nstopd_leaves_dropped_total 2\n", "\ngo_goroutines "} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s: %v", want, text, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// No user of the host can take the daemon's descriptors by them.
	var open []net.Conn
	closed := 0
	for range 2 * metricsConnections {
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
	for range metricsConnections - 1 { // the connection of before may not have gone yet
		if <-done {
			closed++
		}
	}
	if closed < metricsConnections-1 {
		t.Errorf("%d of %d were closed", closed, len(open))
	}
}
