// Package prom serves what was counted to Prometheus, to nobody else than this host and within bounds.
package prom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Connections is how many are open at once at most: any user of the host can connect.
const Connections = 16

// Timeout bounds a request.
const Timeout = 5 * time.Second

// Check says whether metrics may be served at an address.
func Check(at string) error {
	if ap, err := netip.ParseAddrPort(at); err != nil || !ap.Addr().IsLoopback() {
		return fmt.Errorf("%q is not a loopback address and port such as \"127.0.0.1:9113\"", at)
	}
	return nil
}

// Serve answers Prometheus on a listener until end is called.
func Serve(l net.Listener, of prometheus.Collector, log *slog.Logger) (end func()) {
	var open atomic.Int64
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler(of))
	s := &http.Server{
		Handler: mux, ReadTimeout: Timeout, WriteTimeout: Timeout, IdleTimeout: Timeout, MaxHeaderBytes: 4096,
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if open.Add(1) > Connections {
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

// handler has no collector of the process: that reads /proc, which stopd's front cannot.
func handler(of prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(of, collectors.NewGoCollector())
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: Timeout})
}
