package daemon

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"sync/atomic"

	"github.com/stopd/stopd/server"
)

// A frontPart is the server.
type frontPart struct {
	process    *process
	passes     *os.File // the listeners
	server     *server.Server
	endMetrics func()
	cancel     context.CancelFunc
	finished   atomic.Bool
}

func (f *frontPart) config(s started) *server.Config {
	c := s.Front
	c.Logger, c.Ask = f.process.log, askBy(f.process.joints[tracer])
	return c
}

func (f *frontPart) start(s started) error {
	defer f.passes.Close()
	var ls []net.Listener
	for range s.Listeners {
		l, err := receiveListener(f.passes)
		if err != nil {
			return err
		}
		ls = append(ls, l)
	}
	var metrics net.Listener
	if s.Metrics {
		var err error
		if metrics, err = receiveListener(f.passes); err != nil {
			return err
		}
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.server = server.New(answerer{f.process.joints[collector]}, f.config(s))
	f.endMetrics = func() {}
	if metrics != nil {
		f.endMetrics = serveMetrics(metrics, newMetrics(f.server, f.process.joints[tracer]), f.process.log)
	}
	for _, l := range ls {
		go func() {
			if err := f.server.Serve(ctx, l); err != nil {
				f.process.log.Error("accept connections", "error", err)
				os.Exit(1)
			}
		}()
	}
	return nil
}

func (f *frontPart) reload(s started) error {
	f.server.Configure(f.config(s))
	return nil
}

// stop answers what was asked, and lets trace-backs end for a while.
func (f *frontPart) stop() {
	if f.finished.Swap(true) {
		return
	}
	f.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if f.server.Wait(ctx) != nil {
		f.process.log.Warn("stopped before all trace-backs had ended")
	}
	f.endMetrics()
}

func (f *frontPart) serves(_ context.Context, c call, _ []byte) ([]byte, error) {
	if c != callCounted {
		return nil, errCall(c)
	}
	var counted [][2]string
	for _, a := range f.server.Counters.LogValue().Group() {
		counted = append(counted, [2]string{a.Key, a.Value.String()})
	}
	return json.Marshal(counted)
}
