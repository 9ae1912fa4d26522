package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/server"
)

// A tracerPart connects.
type tracerPart struct {
	process   *process
	witnesses []Witness
	client    *http.Client
	resolves  bool
	peers     atomic.Pointer[server.Config] // only who they are
	mu        sync.Mutex
	key       *tls.Certificate // of the host; nil until it is needed, and where it has none
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client, t.resolves = s.Config.Witnesses, translog.WitnessClient(nil), s.Config.resolves()
	return t.reload(s)
}

func (t *tracerPart) reload(s started) error {
	t.peers.Store(&server.Config{Peers: s.Config.serverPeers()})
	return nil
}

func (*tracerPart) stop() {}

func (t *tracerPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callAsk:
		return serve(ctx, c, b, t.ask)
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

// ask asks a previous host: by TLS and not otherwise where it has a pin, whoever wants it asked.
func (t *tracerPart) ask(ctx context.Context, h hostAsked) (stop.Answer, error) {
	c := stop.Client{Source: h.Source, Timeout: h.Timeout, Pin: t.peers.Load().Peer(h.To.Addr()).Pin}
	if c.Pin != "" {
		var err error
		if c.Certificate, err = t.certificate(ctx); err != nil {
			return stop.Answer{}, err
		}
	}
	return c.Ask(ctx, h.To, h.Request)
}

// certificate is the host's. The keeper, which has its key, starts after the tracer.
func (t *tracerPart) certificate(ctx context.Context) (*tls.Certificate, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.key != nil {
		return t.key, nil
	}
	var err error
	t.key, err = certificate(ctx, t.process.joints[keeper], callSignClient)
	return t.key, err
}
