package daemon

import (
	"context"
	"net"
	"net/http"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/server"
)

// A tracerPart connects: it asks previous hosts and witnesses.
type tracerPart struct {
	process    *process
	tracebacks *server.Tracebacks
	witnesses  []Witness
	client     *http.Client
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client = s.Config.Witnesses, translog.WitnessClient(nil)
	s.Server.Logger = t.process.log
	t.tracebacks = server.NewTracebacks(t.keep, s.Server)
	return nil
}

func (t *tracerPart) reload(s started) error {
	s.Server.Logger = t.process.log
	t.tracebacks.Configure(s.Server)
	return nil
}

// keep has the keeper keep what became of previous hosts.
func (t *tracerPart) keep(ctx context.Context, token stop.Token, records []stop.Traceback) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := ask[none](ctx, t.process.joints[keeper], callKeepTraceback, keptTraceback{token, report.EncodeTraceback(records)})
	return err
}

// stop lets those that are asked answer for a while.
func (t *tracerPart) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if t.tracebacks.Wait(ctx) != nil {
		t.process.log.Warn("stopped before all trace-backs had ended")
	}
}

func (t *tracerPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	if c == callPost {
		return serve(ctx, c, b, func(ctx context.Context, p posted) (answered, error) { return post(ctx, t.client, t.witnesses, p) })
	}
	return serveTracer(ctx, t.tracebacks, c, b)
}
