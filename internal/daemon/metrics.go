package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/server"
)

// metrics are the counters and bounds of the front and the tracer, and how the recorder goes. None tells of a user, a connection or a host, nor of
// anything in a report.
type metrics struct {
	counted func(context.Context) (server.Counted, error)
	started time.Time
	// recorded is how the recorder goes; nil where there is none.
	recorded func(context.Context) (*recorded, error)
}

var (
	startDesc = prometheus.NewDesc("stopd_start_time_seconds", "When the processes were started last, since 1970; what is counted begins then.", nil, nil)
	buildDesc = prometheus.NewDesc("stopd_build_info", "The version that runs; always 1.", []string{"version"}, nil)
	usedDesc  = prometheus.NewDesc("stopd_bound_used", "How much of a bound is taken now.", []string{"bound"}, nil)
	limitDesc = prometheus.NewDesc("stopd_bound_limit", "How much of a bound there is.", []string{"bound"}, nil)
	runsDesc  = prometheus.NewDesc("stopd_recorder_running", "Whether connections and processes are remembered now: 1 or 0. None of these where they are not to be.", nil, nil)
	sinceDesc = prometheus.NewDesc("stopd_recorder_start_time_seconds", "Since when they are remembered, since 1970: before a restart where that was kept.", nil, nil)
	lostDesc  = prometheus.NewDesc("stopd_recorder_lost_events_total", "Events of connections and processes that were lost: no room, skipped by the kernel, or found to be missing.", nil, nil)
	hasDesc   = prometheus.NewDesc("stopd_recorder_entries", "How many are remembered, ended or not.", []string{"of"}, nil)
	roomDesc  = prometheus.NewDesc("stopd_recorder_entries_limit", "How many of each can be; then what ended first gives way.", nil, nil)
	metDesc   = prometheus.NewDesc("stopd_bound_reached_total", "How often a bound was met; what is done then is in stopd(8).", []string{"bound"}, nil)
)

// counters are the metrics of what is counted, by the names under which it is logged.
var counters = map[string]*prometheus.Desc{
	"requests":          counter("requests", "Lines read."),
	"malformed":         counter("malformed_requests", "Lines that do not parse."),
	"errors":            counter("errors", "Replies with an error."),
	"tokens":            counter("tokens", "Replies that a record stands for: its token, or a user's name."),
	"names":             counter("names", "Of these, those with a user's name."),
	"decoys":            counter("decoys", "Of these, those whose record says only why."),
	"duplicates":        counter("duplicates", "Of these, those to duplicates."),
	"over_bound":        counter("over_bound", "Requests and trace-backs turned away at a bound."),
	"asked":             counter("asked", "Previous hosts asked."),
	"evicted":           counter("evicted", "Connections ended to make room."),
	"refused":           counter("refused", "Connections refused."),
	"failed":            counter("failed", "Requests without a reply, and trace-backs without a record, because of an error."),
	"no_room":           counter("no_room", "Reports that the store had no room for."),
	"handshakes":        counter("handshakes", "Connections that speak TLS."),
	"failed_handshakes": counter("failed_handshakes", "Connections that began with TLS and came to nothing."),
	"plain_refused":     counter("plain_refused", "Lines in plain of peers whose key is pinned, which are not answered."),
	forwardedCount:      counter("leaves_forwarded", "Messages sent to the log server: the leaves of the log, and its checkpoints."),
	droppedCount:        counter("leaves_dropped", "Leaves that were not sent to the log server, because too many waited."),
}

func counter(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("stopd_"+name+"_total", help, nil, nil)
}

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, startDesc, usedDesc, limitDesc, metDesc, runsDesc, sinceDesc, lostDesc, hasDesc, roomDesc} {
		ch <- d
	}
	for _, d := range counters {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, Version)
	ch <- prometheus.MustNewConstMetric(startDesc, prometheus.GaugeValue, float64(m.started.UnixNano())/1e9)
	ctx, cancel := context.WithTimeout(context.Background(), prom.Timeout)
	defer cancel()
	defer m.collectRecorder(ch)
	all, err := m.counted(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(metDesc, err)
		return
	}
	for _, n := range all.Counts {
		if d, ok := counters[n.Name]; ok {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.N))
		}
	}
	for _, b := range all.Bounds {
		ch <- prometheus.MustNewConstMetric(metDesc, prometheus.CounterValue, float64(b.Reached), b.Name)
		if b.Limit > 0 {
			ch <- prometheus.MustNewConstMetric(usedDesc, prometheus.GaugeValue, float64(b.Used), b.Name)
			ch <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(b.Limit), b.Name)
		}
	}
}

// collectRecorder leaves its metrics out where the collector does not answer: who hangs is ended, which the log says.
func (m metrics) collectRecorder(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), prom.Timeout/5)
	defer cancel()
	r, err := m.recorded(ctx)
	if err != nil || r == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(r.Lost))
	if !r.Running {
		gauge(runsDesc, 0)
		return
	}
	gauge(runsDesc, 1)
	gauge(sinceDesc, float64(r.Since.UnixNano())/1e9)
	gauge(hasDesc, float64(r.Connections), "connections")
	gauge(hasDesc, float64(r.Processes), "processes")
	gauge(roomDesc, float64(r.Room))
}
