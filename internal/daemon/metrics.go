package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stopd/stopd/server"
)

// Bounds of the metrics' own server: any user of the host can connect to it.
const (
	metricsConnections = 16
	metricsTimeout     = 5 * time.Second
)

// serveMetrics answers Prometheus on a listener until end is called.
func serveMetrics(l net.Listener, of *metrics, log *slog.Logger) (end func()) {
	var open atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(of))
	s := &http.Server{
		Handler: mux, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: metricsTimeout, MaxHeaderBytes: 4096,
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if open.Add(1) > metricsConnections {
					c.Close()
				}
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serve metrics", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
	}
}

// metricsHandler has no collector of the process: that reads /proc, which the front cannot.
func metricsHandler(m *metrics) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(m, collectors.NewGoCollector())
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: metricsTimeout})
}

// metrics are the server's counters and bounds. None tells of a user, a connection or a host, nor of anything in
// a report.
type metrics struct {
	server    *server.Server
	started   time.Time
	forwarded func() (forwardedCount, error)
}

func newMetrics(s *server.Server, tracer *link) *metrics {
	return &metrics{s, time.Now(), func() (forwardedCount, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return ask[forwardedCount](ctx, tracer, callForwarded, none{})
	}}
}

var (
	startDesc = prometheus.NewDesc("stopd_start_time_seconds", "When the processes were started last, since 1970; what is counted begins then.", nil, nil)
	sentDesc  = counter("leaves_forwarded", "Messages sent to the log server: the leaves of the log, and its checkpoints.")
	lostDesc  = counter("leaves_dropped", "Leaves that were not sent to the log server, because too many waited.")
	buildDesc = prometheus.NewDesc("stopd_build_info", "The version that runs; always 1.", []string{"version"}, nil)
	usedDesc  = prometheus.NewDesc("stopd_bound_used", "How much of a bound is taken now.", []string{"bound"}, nil)
	limitDesc = prometheus.NewDesc("stopd_bound_limit", "How much of a bound there is.", []string{"bound"}, nil)
	metDesc   = prometheus.NewDesc("stopd_bound_reached_total", "How often a bound was met; what is done then is in stopd(8).", []string{"bound"}, nil)
)

// counters are those of the server, in the order in which they are logged.
var counters = []struct {
	desc *prometheus.Desc
	of   func(*server.Counters) *atomic.Uint64
}{
	{counter("requests", "Lines read."), func(c *server.Counters) *atomic.Uint64 { return &c.Requests }},
	{counter("malformed_requests", "Lines that do not parse."), func(c *server.Counters) *atomic.Uint64 { return &c.Malformed }},
	{counter("errors", "Replies with an error."), func(c *server.Counters) *atomic.Uint64 { return &c.Errors }},
	{counter("tokens", "Replies with a token that a record stands for."), func(c *server.Counters) *atomic.Uint64 { return &c.Tokens }},
	{counter("decoys", "Of these, those whose record says only why."), func(c *server.Counters) *atomic.Uint64 { return &c.Decoys }},
	{counter("duplicates", "Of these, those to duplicates."), func(c *server.Counters) *atomic.Uint64 { return &c.Duplicates }},
	{counter("over_bound", "Requests and trace-backs turned away at a bound."), func(c *server.Counters) *atomic.Uint64 { return &c.OverBound }},
	{counter("asked", "Previous hosts asked."), func(c *server.Counters) *atomic.Uint64 { return &c.Asked }},
	{counter("evicted", "Connections ended to make room."), func(c *server.Counters) *atomic.Uint64 { return &c.Evicted }},
	{counter("refused", "Connections refused."), func(c *server.Counters) *atomic.Uint64 { return &c.Refused }},
	{counter("failed", "Requests without a reply, and trace-backs without a record, because of an error."), func(c *server.Counters) *atomic.Uint64 { return &c.Failed }},
	{counter("no_room", "Reports that the store had no room for."), func(c *server.Counters) *atomic.Uint64 { return &c.NoRoom }},
}

func counter(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("stopd_"+name+"_total", help, nil, nil)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, startDesc, sentDesc, lostDesc, usedDesc, limitDesc, metDesc} {
		ch <- d
	}
	for _, c := range counters {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, Version)
	ch <- prometheus.MustNewConstMetric(startDesc, prometheus.GaugeValue, float64(m.started.UnixNano())/1e9)
	if n, err := m.forwarded(); err == nil { // without the tracer, all are about to be started anew
		ch <- prometheus.MustNewConstMetric(sentDesc, prometheus.CounterValue, float64(n.Sent))
		ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(n.Dropped))
	}
	for _, c := range counters {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.of(&m.server.Counters).Load()))
	}
	for _, b := range m.server.Bounds() {
		ch <- prometheus.MustNewConstMetric(metDesc, prometheus.CounterValue, float64(b.Reached), b.Name)
		if b.Limit > 0 {
			ch <- prometheus.MustNewConstMetric(usedDesc, prometheus.GaugeValue, float64(b.Used), b.Name)
			ch <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(b.Limit), b.Name)
		}
	}
}
