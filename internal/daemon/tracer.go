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
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client = s.Config.Witnesses, translog.WitnessClient(nil)
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
	case callCounted:
		return []byte("null"), nil
	}
	return nil, errCall(c)
}
