package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	stop "github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/optin"
	"github.com/stopd/stopd/internal/recorder"
	"github.com/stopd/stopd/server"
)

// A collectorPart examines.
type collectorPart struct {
	keeper     *farKeeper
	tracer     tracing
	supervisor *link
	log        *slog.Logger
	sys        system
	secret     [32]byte // of the numbers that the front tells connections by
	teller     *teller
	past       *keptPast // nil where nothing is kept over a restart
	ctx        context.Context
	cancel     context.CancelFunc
	later      sync.WaitGroup // what the start does not wait for
	watching   chan struct{}  // one process at a time
	watchables examine.Watchables
	unwatched  atomic.Bool // the kernel lets no process be watched
	ended      atomic.Bool
	cannot     atomic.Bool // remember, and was to
	now        atomic.Pointer[examine.Examiner]
}

func (o *collectorPart) start(s started) (err error) {
	if o.sys, err = openSystem(); err != nil {
		return err
	}
	rand.Read(o.secret[:]) // never fails
	o.watching = make(chan struct{}, 1)
	o.ctx, o.cancel = context.WithCancel(context.Background())
	if s.PastKey != nil {
		if scope, err := o.sys.scope(); err != nil {
			o.log.Warn("what is remembered will be lost with a restart", "error", err)
		} else {
			o.past = newKeptPast(o.keeper.link, recorder.Seal{Key: s.PastKey, Scope: scope}, o.log, o.sys)
		}
	}
	o.later.Go(func() {
		if err := o.sys.accelerate(); err != nil {
			o.log.Info("descriptors are read by /proc alone", "error", err)
		}
		if err := o.sys.tryWatch(); err != nil {
			o.unwatched.Store(true)
			o.log.Info("what passes through a process is not watched", "error", err)
		}
		o.rememberIfItCan(s.Config.Recorder)
	})
	if s.Config.Recorder.Mode == recorderRequire {
		if err := o.remember(s.Config.Recorder); err != nil {
			return fmt.Errorf("remember what has ended: %w", err)
		}
	}
	if n := s.Config.NAT; n.Answer {
		if err := o.sys.track(n.Keep.Duration, n.Connections); errors.Is(err, errUntracked) {
			return fmt.Errorf("answer for what this host passes on: %w", err)
		} else if err != nil {
			o.log.Warn("translated connections are answered for while they are there, and not once they have ended", "error", err)
		}
	}
	o.teller = &teller{account: o.sys.account, read: readBySupervisor(o.supervisor), names: &optin.Names{Resolve: resolveByTracer(o.tracer.link)}}
	o.later.Go(func() { o.teller.names.Run(o.ctx) })
	return o.reload(s)
}

// rememberIfItCan lets the past be remembered where that is to be, and says where it cannot.
func (o *collectorPart) rememberIfItCan(r Recorder) {
	if r.Mode != recorderAuto {
		return
	}
	if err := o.remember(r); err != nil {
		o.cannot.Store(true)
		o.log.Warn("what has ended is not remembered", "error", err)
	}
}

// remember lets the past be remembered. Its tables have no pointers, and are made once: they must not count as memory that
// may grow threefold before it is collected.
func (o *collectorPart) remember(r Recorder) error {
	var restore func(*recorder.History, uint64)
	if o.past != nil {
		restore = func(h *recorder.History, since uint64) { o.past.restore(o.ctx, h, since) }
	}
	failed := func(err error) {
		if err != nil {
			o.log.Error("the recorder failed: nothing is remembered until it is started again", "error", err)
		} else {
			o.log.Info("the recorder goes on")
		}
	}
	if err := o.sys.remember(r, restore, failed); err != nil {
		return err
	}
	for _, err := range o.sys.unremembered() {
		o.log.Warn("part of what has ended is not remembered", "error", err)
	}
	if o.past != nil {
		o.later.Go(func() { o.past.run(o.ctx) })
	}
	debug.SetGCPercent(growth(r.Memory))
	return nil
}

// growth is by how many per cent memory may grow before it is collected, beside tables of so many octets.
func growth(tables int) int {
	const heap = 8 << 20 // of the collector without them, about
	return max(1, 200*heap/(heap+tables))
}

func (o *collectorPart) reload(s started) error {
	x := examiner(s.Config, o.sys, s.PIDs)
	x.Keeper, x.Checkpoint, x.Tracer, x.Secret = o.keeper, o.keeper.checkpoint, o.tracer, o.secret[:]
	x.Tell, x.Watch, x.Watchables = o.teller.tell, o.watch, &o.watchables
	o.now.Store(x)
	return nil
}

// stop keeps what is remembered, and then lets the keeper go.
func (o *collectorPart) stop() {
	if o.ended.Swap(true) {
		return
	}
	o.cancel()
	o.later.Wait()
	if o.past != nil {
		ctx, cancel := context.WithTimeout(context.Background(), lastKeepTime)
		defer cancel()
		o.past.save(ctx, true)
	}
	o.sys.close()
	o.keeper.link.close()
}

func (o *collectorPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callFlow:
		return serve(ctx, c, b, o.flow)
	case callKeeping:
		if o.past != nil {
			o.past.begun()
		}
		return nil, nil
	case callRecorded:
		return json.Marshal(o.recorded())
	case callCounted:
		return serve(ctx, c, b, func(context.Context, none) (server.Counted, error) {
			return server.Counted{Bounds: []server.Bound{o.sys.tracked()}}, nil
		})
	}
	return serveAnswerer(ctx, o.now.Load(), o.log, c, b)
}

// watch watches a process. Where that cannot be, once that is known, nothing was seen to pass.
func (o *collectorPart) watch(ctx context.Context, id host.ID, window time.Duration) ([]host.Transfer, error) {
	if o.unwatched.Load() {
		return nil, nil
	}
	return o.sys.watch(ctx, id, window)
}

// flow has one process watched at a time. Who waits too long goes without.
func (o *collectorPart) flow(ctx context.Context, order watchOrder) ([]stop.Fed, error) {
	ctx, cancel := context.WithTimeout(ctx, order.Within)
	defer cancel()
	select {
	case o.watching <- struct{}{}:
		defer func() { <-o.watching }()
		return o.now.Load().Flow(ctx, order.Token)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// recorded says how remembering goes; nil where nothing is to be remembered, or it has not been tried yet.
func (o *collectorPart) recorded() *recorded {
	if o.cannot.Load() {
		return &recorded{}
	}
	if o.sys.recorded == nil {
		return nil
	}
	return o.sys.recorded()
}

// A farKeeper is the keeper as the collector sees it. It does not wait for it for ever.
type farKeeper struct {
	link *link

	mu     sync.Mutex
	digest string    // of the log's last checkpoint
	asked  time.Time // when that was
}

// checkpointAge is for how long the last checkpoint is not asked for again. A report that commits to one before the last is
// proven to be no older than that one; checkpoints are ten seconds apart at least.
const checkpointAge = time.Second

func (k *farKeeper) Keep(ctx context.Context, report []byte, p stop.Payer) (stop.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	var t stop.Token
	b, err := formatKept(report, p)
	if err == nil {
		b, err = k.link.call(ctx, callKeep, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil && t != stop.TokenOf(report) {
		err = errors.New("the keeper's token is another report's")
	}
	if err != nil {
		return stop.Token{}, err
	}
	return t, nil
}

// checkpoint is the digest of the log's last checkpoint, as it was at most checkpointAge ago; empty where the keeper does not say.
func (k *farKeeper) checkpoint() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.asked) < checkpointAge {
		return k.digest
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	k.digest, _ = ask[string](ctx, k.link, callCheckpoint, none{})
	k.asked = time.Now()
	return k.digest
}
