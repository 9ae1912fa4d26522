package daemon

import (
	"context"
	"net"
	"net/http"

	"github.com/stopd/stopd/evidence/translog"
)

// A tracerPart connects.
type tracerPart struct {
	witnesses []Witness
	client    *http.Client
	syslog    *logServer // nil where there is none
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client = s.Config.Witnesses, translog.WitnessClient(nil)
	if s.Config.Syslog.To != "" {
		var err error
		if t.syslog, err = parseLogServer(s.Config.Syslog.To); err != nil {
			return err
		}
	}
	return nil
}

func (*tracerPart) reload(started) error { return nil }
func (*tracerPart) stop()                {}

func (t *tracerPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callAsk:
		return serve(ctx, c, b, askHost)
	case callPost:
		return serve(ctx, c, b, func(ctx context.Context, p posted) (answered, error) { return post(ctx, t.client, t.witnesses, p) })
	case callForward:
		return serve(ctx, c, b, func(ctx context.Context, l forwardedLine) (none, error) {
			if t.syslog == nil {
				return none{}, errCall(c)
			}
			ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
			defer cancel()
			return none{}, t.syslog.send(ctx, l)
		})
	case callForwarded:
		return serve(ctx, c, b, func(context.Context, none) (n forwardedCount, err error) {
			if t.syslog != nil {
				n = t.syslog.forwarded()
			}
			return n, nil
		})
	case callCounted:
		return []byte("null"), nil
	}
	return nil, errCall(c)
}
