package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/examine"
)

// A collectorPart examines.
type collectorPart struct {
	keeper *farKeeper
	log    *slog.Logger
	sys    system
	later  sync.WaitGroup // what the start does not wait for
	now    atomic.Pointer[examine.Examiner]
}

func (o *collectorPart) start(s started) (err error) {
	if o.sys, err = openSystem(); err != nil {
		return err
	}
	o.later.Go(func() {
		if err := o.sys.accelerate(); err != nil {
			o.log.Info("descriptors are read by /proc alone", "cause", err)
		}
	})
	return o.reload(s)
}

func (o *collectorPart) reload(s started) error {
	x := examiner(s.Config, o.sys, s.PIDs)
	x.Keeper, x.Checkpoint = o.keeper, o.keeper.checkpoint
	o.now.Store(x)
	return nil
}

func (o *collectorPart) stop() {
	o.later.Wait()
	o.sys.close()
}

func (o *collectorPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	if c == callCounted {
		return []byte("null"), nil
	}
	return serveAnswerer(o.now.Load)(ctx, c, b)
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

func (k *farKeeper) KeepTraceback(ctx context.Context, t stop.Token, record []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := ask[none](ctx, k.link, callKeepTraceback, keptTraceback{t, record})
	return err
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
