package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/internal/prom"
	"github.com/stopd/stopd/server"
)

// A frontPart is the server.
type frontPart struct {
	process    *process
	key        *tls.Certificate // of the host; nil where it has none
	passes     *os.File         // the listeners
	server     *server.Server
	endMetrics func()
	cancel     context.CancelFunc
	finished   atomic.Bool
}

func (f *frontPart) config(s started) *server.Config {
	c := s.Server
	c.Logger, c.Certificate = f.process.log, f.key
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
	var page net.Listener // of metrics
	if s.Metrics {
		var err error
		if page, err = receiveListener(f.passes); err != nil {
			return err
		}
	}
	var err error
	if f.key, err = certificate(context.Background(), f.process.joints[keeper], callSignServer); err != nil {
		return err
	}
	if f.key != nil {
		f.process.log.Info("answering by TLS as well", "pin", stop.PinOf(f.key.Leaf))
	} else {
		f.process.log.Info("this host has no TLS key: TLS is refused")
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.server = server.New(answerer{f.process.joints[collector]}, tracing{f.process.joints[tracer]}, f.config(s))
	f.endMetrics = func() {}
	if page != nil {
		f.endMetrics = prom.Serve(page, metrics{f.counted, time.Now(), answerer{f.process.joints[collector]}.recorded}, f.process.log)
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

// counted gives what all processes counted that have something to do with strangers.
func (f *frontPart) counted(ctx context.Context) (server.Counted, error) {
	c, err := f.server.AllCounted(ctx)
	if err != nil {
		return c, err
	}
	of, err := answerer{f.process.joints[collector]}.Counted(ctx)
	return c.And(of), err
}

func (f *frontPart) reload(s started) error {
	f.server.Configure(f.config(s))
	return nil
}

// stop answers what was asked.
func (f *frontPart) stop() {
	if f.finished.Swap(true) {
		return
	}
	f.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if f.server.Wait(ctx) != nil {
		f.process.log.Warn("stopped before all requests were answered")
	}
	f.endMetrics()
}

func (f *frontPart) serves(_ context.Context, c call, _ []byte) ([]byte, error) {
	if c != callCounted {
		return nil, errCall(c)
	}
	return json.Marshal(f.server.Counted())
}
