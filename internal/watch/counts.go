package watch

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Counts are what was done since the start.
type Counts struct {
	Lines      atomic.Int64 // read
	Unreadable atomic.Int64 // of them
	NoFlow     atomic.Int64 // of them: about no connection of TCP
	Lost       atomic.Int64 // files of which the end is not read
	Missed     atomic.Int64 // times the kernel dropped events of connections
	Matched    atomic.Int64 // connections that a rule fits
	Late       atomic.Int64 // questions not asked: the connection may be over, and its ports another's
	Repeated   atomic.Int64 // questions that were asked before
	OverBudget atomic.Int64 // questions not asked: over a budget
	Dropped    atomic.Int64 // questions not asked: too many wait
	Asked      atomic.Int64 // questions sent
	Retried    atomic.Int64 // of them, again
	Tokens     atomic.Int64 // answers: a token, or a name
	Errors     atomic.Int64 // answers: an error
	Failed     atomic.Int64 // hosts that could not be asked
	Rested     atomic.Int64 // hosts that were left alone for a time
	Kept       atomic.Int64 // records
	Unkept     atomic.Int64 // records that could not be kept at the end
	Left       atomic.Int64 // questions that were not asked at the end
}

// A Count is one of them.
type Count struct {
	Name, Says string
	N          int64
}

// List gives them all, in the order in which a connection meets them.
func (c *Counts) List() []Count {
	return []Count{
		{"lines", "lines read", c.Lines.Load()},
		{"unreadable", "lines that could not be read", c.Unreadable.Load()},
		{"no_flow", "reports of no TCP connection", c.NoFlow.Load()},
		{"lost", "files whose end was not read", c.Lost.Load()},
		{"missed", "times that the kernel dropped events", c.Missed.Load()},
		{"matched", "connections that a rule fits", c.Matched.Load()},
		{"late", "questions about what was too long ago", c.Late.Load()},
		{"repeated", "questions asked lately", c.Repeated.Load()},
		{"over_budget", "questions over a budget", c.OverBudget.Load()},
		{"dropped", "questions dropped: too many waited", c.Dropped.Load()},
		{"asked", "questions sent", c.Asked.Load()},
		{"retried", "questions to be sent again", c.Retried.Load()},
		{"tokens", "answers with a token or a name", c.Tokens.Load()},
		{"errors", "answers with an error", c.Errors.Load()},
		{"failed", "hosts that could not be asked", c.Failed.Load()},
		{"rested", "times that a host which could not be asked was left alone", c.Rested.Load()},
		{"kept", "answers kept", c.Kept.Load()},
		{"unkept", "answers lost: they could not be kept", c.Unkept.Load()},
		{"left", "questions left at the end", c.Left.Load()},
	}
}

// Summary says in a line what was done; what never happened it leaves out.
func (c *Counts) Summary() string {
	var parts []string
	for _, n := range c.List() {
		if n.N > 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", n.Says, n.N))
		}
	}
	if len(parts) == 0 {
		return "nothing was reported"
	}
	return strings.Join(parts, "; ")
}

// collected gives the counts to Prometheus.
type collected struct{ counts *Counts }

func (c Count) desc() *prometheus.Desc {
	return prometheus.NewDesc("stopctl_watch_"+c.Name+"_total", "Since the start, "+c.Says+".", nil, nil)
}

// Describe implements prometheus.Collector.
func (c collected) Describe(ch chan<- *prometheus.Desc) {
	for _, n := range c.counts.List() {
		ch <- n.desc()
	}
}

// Collect implements prometheus.Collector.
func (c collected) Collect(ch chan<- prometheus.Metric) {
	for _, n := range c.counts.List() {
		ch <- prometheus.MustNewConstMetric(n.desc(), prometheus.CounterValue, float64(n.N))
	}
}
