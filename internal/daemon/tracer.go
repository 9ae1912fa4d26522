package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/stopd/stopd/evidence/translog"
)

// A tracerPart connects.
type tracerPart struct {
	witnesses []Witness
	client    *http.Client
	resolves  bool
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client, t.resolves = s.Config.Witnesses, translog.WitnessClient(nil), s.Config.resolves()
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
	case callResolve:
		return serve(ctx, c, b, t.resolve)
	case callCounted:
		return []byte("null"), nil
	}
	return nil, errCall(c)
}

// maxAddresses is how many addresses of a host's name count.
const maxAddresses = 64

// resolve looks the name of a host up that a user named.
func (t *tracerPart) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if !t.resolves {
		return nil, errors.New("look a name up: no names are to be, by the configuration at the start")
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	for i, a := range addrs {
		addrs[i] = a.Unmap().WithZone("")
	}
	return addrs[:min(len(addrs), maxAddresses)], err
}
