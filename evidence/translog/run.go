package translog

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// A Schedule says when a log is signed and shown to witnesses.
type Schedule struct {
	Grown     time.Duration // how long records wait for a checkpoint
	Heartbeat time.Duration // how long a checkpoint is not shown again where nothing grew
	Retry     time.Duration // how long it is not shown again where nothing grew and a witness did not answer
}

// DefaultSchedule is what the daemon uses.
var DefaultSchedule = Schedule{Grown: 10 * time.Second, Heartbeat: 5 * time.Minute, Retry: 30 * time.Second}

// Run signs what was appended and shows it to the witnesses, until the context ends. A checkpoint waits for no
// witness. What is appended after Run has ended is for the caller to sign.
func (l *Log) Run(ctx context.Context, s Schedule, p Policy, logger *slog.Logger) {
	grown := time.NewTicker(s.Grown)
	defer grown.Stop()
	k := cosigning{log: l, schedule: s, policy: p, logger: logger, said: map[string]string{}}
	done := make(chan struct{}, 1)
	defer func() {
		if k.busy {
			<-done // the context has ended: it is soon over
		}
	}()
	failing := false
	for {
		if err := l.Checkpoint(); err != nil {
			if !failing {
				logger.Error("the log cannot be written: what comes from now on is not signed", "error", err)
			}
			failing = true
		} else if failing {
			logger.Info("the log is written again", "leaves", l.Head().N)
			failing = false
		}
		if len(p.Witnesses) > 0 && k.due(time.Now()) {
			k.busy = true
			go func() {
				k.round(ctx)
				done <- struct{}{}
			}()
		}
		select {
		case <-ctx.Done():
			return
		case <-grown.C:
		case <-l.many:
		case <-done:
			k.busy = false
		}
	}
}

// cosigning is the state of showing a log to witnesses.
type cosigning struct {
	log      *Log
	schedule Schedule
	policy   Policy
	logger   *slog.Logger
	busy     bool

	// These are of the round that runs, or ran last.
	shown string    // the text of the checkpoint
	began time.Time // the zero time before the first
	short bool      // somebody did not cosign
	said  map[string]string
}

// due reports whether another round is to begin.
func (k *cosigning) due(now time.Time) bool {
	if k.busy {
		return false
	}
	since := now.Sub(k.began)
	return k.log.Head().text != k.shown || since >= k.schedule.Heartbeat || k.short && since >= k.schedule.Retry
}

// round asks every witness once, and says what changed.
func (k *cosigning) round(ctx context.Context) {
	k.began, k.shown = time.Now(), k.log.Head().text
	failed, err := k.log.Cosign(ctx, k.policy)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		k.logger.Error("cosignatures cannot be kept", "error", err)
	}
	k.short = err != nil || len(failed) > 0
	now := map[string]string{}
	for _, f := range failed {
		name, text := f.Witness.Name(), f.Err.Error()
		another := errors.Is(f.Err, ErrRolledBack) || errors.Is(f.Err, ErrForked)
		if another {
			text = "another log" // the sizes change as the log grows
		}
		now[name] = text
		switch {
		case k.said[name] == text:
		case another:
			k.logger.Error("a witness has seen another log than this one: run stopctl audit", "witness", name, "error", f.Err)
		default:
			k.logger.Warn("a witness did not cosign", "witness", name, "error", f.Err)
		}
	}
	for name := range k.said {
		if now[name] == "" {
			k.logger.Info("a witness cosigns again", "witness", name)
		}
	}
	k.said = now
}
