package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

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
	syslog     *logServer // nil where there is none
	resolves   bool
	mu         sync.Mutex
	key        *tls.Certificate // of the host; nil until it is needed, and where it has none
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client, t.resolves = s.Config.Witnesses, translog.WitnessClient(nil), s.Config.resolves()
	if s.Config.Syslog.To != "" {
		var err error
		if t.syslog, err = parseLogServer(s.Config.Syslog.To); err != nil {
			return err
		}
	}
	t.tracebacks = server.NewTracebacks(t.keep, t.config(s))
	return nil
}

func (t *tracerPart) reload(s started) error {
	t.tracebacks.Configure(t.config(s))
	return nil
}

func (t *tracerPart) config(s started) *server.Config {
	c := s.Server
	c.Logger, c.Shown, c.Flow = t.process.log, t.certificate, t.flow
	return c
}

// flow has the collector tell which candidates of a token's question feed the asked connection.
func (t *tracerPart) flow(ctx context.Context, of stop.Token) ([]stop.Fed, error) {
	return ask[[]stop.Fed](ctx, t.process.joints[collector], callFlow, watchOrder{of, until(ctx)})
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
	switch c {
	case callFound:
		return serve(ctx, c, b, func(ctx context.Context, f stop.Finding) (none, error) { return none{}, t.tracebacks.Found(ctx, f) })
	case callBegin:
		return serve(ctx, c, b, func(ctx context.Context, of stop.Token) (none, error) { return none{}, t.tracebacks.Begin(ctx, of) })
	case callPost:
		return serve(ctx, c, b, func(ctx context.Context, p posted) (answered, error) { return post(ctx, t.client, t.witnesses, p) })
	case callResolve:
		return serve(ctx, c, b, t.resolve)
	case callForward:
		return serve(ctx, c, b, t.forward)
	case callCounted:
		return serve(ctx, c, b, func(ctx context.Context, _ none) (server.Counted, error) {
			counted, err := t.tracebacks.Counted(ctx)
			return counted.And(server.Counted{Counts: t.syslog.counts()}), err
		})
	}
	return nil, errCall(c)
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

// forward sends a line to the log server.
func (t *tracerPart) forward(ctx context.Context, l forwardedLine) (none, error) {
	if t.syslog == nil {
		return none{}, errCall(callForward)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	return none{}, t.syslog.send(ctx, l)
}

// maxAddresses is how many addresses a host that a user names may have.
const maxAddresses = 64

// resolve looks the name of a host up that a user named.
func (t *tracerPart) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if !t.resolves {
		return nil, errors.New("look a name up: no names are to be, by the configuration at the start")
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	return addressesOf(addrs)
}

// addressesOf are the addresses of a host as requesters have them. Of too many none is left out: who has that one would not be hidden from.
func addressesOf(found []netip.Addr) (addrs []netip.Addr, err error) {
	if len(found) > maxAddresses {
		return nil, fmt.Errorf("bound: a host with more than %d addresses", maxAddresses)
	}
	for _, a := range found {
		addrs = append(addrs, a.Unmap().WithZone(""))
	}
	return addrs, nil
}
