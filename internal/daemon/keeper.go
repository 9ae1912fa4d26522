package daemon

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
)

// A keeperPart is the store.
type keeperPart struct {
	process *process
	control *os.File // passes the control socket's listener
	store   *evidence.Store
	policy  translog.Policy
	key     *tls.Certificate // of the host; nil where it has none
	cancel  context.CancelFunc
	done    [2]chan struct{} // the log's work, the control socket
	forward *forwarder       // nil where there is no log server
	past    pastFile
	ended   atomic.Bool
}

func (k *keeperPart) start(s started) error {
	var by http.RoundTripper
	if l := k.process.joints[tracer]; l != nil {
		by = poster{l}
	}
	path, err := TLSKeyPath(s.Config.Store)
	if err != nil {
		return err
	}
	if k.key, err = ReadTLSKey(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if k.store, k.policy, err = openStore(s.Config, by, k.process.log); err != nil {
		return err
	}
	k.past = pastFile{dir: pastDir(s.Config.Store), most: pastFileMost(s.Config.Recorder)}
	if s.Config.Syslog.To != "" {
		tell := func(ctx context.Context, l forwardedLine) error {
			_, err := ask[none](ctx, k.process.joints[tracer], callForward, l)
			return err
		}
		k.forward = newForwarder(k.store.Log(), k.policy.Origin(), tell, k.process.log)
		go k.forward.run()
	}
	// The control socket goes on while the last requests finish, and so do the log and its witnesses.
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(context.Background())
	k.done = [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(k.done[0])
		k.store.Log().Run(ctx, translog.DefaultSchedule, k.policy, k.process.log)
	}()
	go func() {
		defer close(k.done[1])
		if err := k.serveControl(ctx); err != nil {
			k.process.log.Error("serve control socket", "error", err)
		}
	}()
	return nil
}

func (k *keeperPart) serveControl(ctx context.Context) error {
	if k.control == nil {
		return nil
	}
	defer k.control.Close()
	l, err := receiveListener(k.control)
	if errors.Is(err, io.EOF) {
		return nil // the daemon does not come to answer
	}
	if err != nil {
		return err
	}
	return k.store.ServeControl(ctx, l)
}

func (*keeperPart) reload(started) error { return nil }

// stop signs the log as it is at the end, shows it to the witnesses once more, and closes the store.
func (k *keeperPart) stop() {
	if k.ended.Swap(true) {
		return
	}
	k.cancel()
	<-k.done[0]
	<-k.done[1]
	vouch(k.store.Log(), k.policy, k.process.log)
	if err := k.store.Close(); err != nil {
		k.process.log.Error("close the store", "error", err)
	}
	if k.forward != nil {
		k.forward.end()
	}
	if l := k.process.joints[collector]; l != nil { // it hands over what it remembers as it stops
		select {
		case <-l.ended:
		case <-time.After(lastKeepTime):
		}
	}
}

func (k *keeperPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	switch c {
	case callKeep:
		report, p, err := parseKept(b)
		if err != nil {
			return nil, err
		}
		t, err := k.store.Keep(ctx, report, p)
		if err != nil {
			return nil, err
		}
		return json.Marshal(t)
	case callKeepTraceback:
		return serve(ctx, c, b, func(ctx context.Context, t keptTraceback) (none, error) {
			return none{}, k.store.KeepTraceback(ctx, t.Token, t.Record)
		})
	case callCheckpoint:
		return json.Marshal(k.store.Log().LastDigest())
	case callRecordConfig:
		return serve(ctx, c, b, func(ctx context.Context, sum [32]byte) (none, error) { return none{}, k.store.RecordConfig(ctx, sum) })
	case callKeepPast:
		return nil, k.past.write(b)
	case callPast:
		return k.past.read(b)
	case callCertificate:
		if k.key == nil {
			return nil, nil
		}
		return k.key.Certificate[0], nil
	case callSignServer:
		return signHandshake(k.key, b, serverContext)
	case callSignClient:
		return signHandshake(k.key, b, clientContext)
	}
	return nil, errCall(c)
}

// vouch signs the log as it is at the end, and shows it to the witnesses once more.
func vouch(l *translog.Log, p translog.Policy, log *slog.Logger) {
	if err := l.Checkpoint(); err != nil {
		return // the store's Close tries again, and says so
	}
	ctx, cancel := context.WithTimeout(context.Background(), vouchTimeout)
	defer cancel()
	failed, err := l.Cosign(ctx, p)
	if err != nil {
		log.Error("cosignatures cannot be kept", "error", err)
	}
	for _, f := range failed {
		log.Warn("a witness did not cosign the last checkpoint", "witness", f.Witness.Name(), "error", f.Err)
	}
}
