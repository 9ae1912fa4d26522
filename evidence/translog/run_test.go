package translog

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"
)

// Run signs what grows while a witness hangs, and has it cosigned by the others.
func TestRun(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	a, hangs := newWitness(t, "a.example", key), newWitness(t, "hangs.example", key)
	gone := make(chan struct{})
	hangs.instead = func(_ http.ResponseWriter, r *http.Request) { <-gone }
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		l.Run(ctx, Schedule{time.Millisecond, time.Hour, time.Hour}, policyOf(t, key, 1, a, hangs), slog.New(slog.DiscardHandler))
		close(ran)
	}()
	for n := int64(1); n <= 3; n++ {
		if err := l.Append(leavesOf(l.Size(), n)); err != nil {
			t.Fatal(err)
		}
		for l.Head().N < n { // signed although the round that asks has not ended
			time.Sleep(time.Millisecond)
		}
	}
	close(gone)
	for cosigned(t, l, policyOf(t, key, 1, a, hangs)) != 3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ran
}

func TestRunShowsAgain(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	w := newWitness(t, "w.example", key)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		l.Run(ctx, Schedule{time.Millisecond, 2 * time.Millisecond, time.Hour}, policyOf(t, key, 0, w), slog.New(slog.DiscardHandler))
		close(ran)
	}()
	for asked := 0; asked < 4; { // nothing grows, and it is shown
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		asked = w.asked
		w.mu.Unlock()
	}
	cancel()
	<-ran
}

// Who verifies while checkpoints are signed and cosigned finds nothing.
func TestVerifyBesideCosigning(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	p := policyOf(t, key, 0, newWitness(t, "w.example", key))
	if failed, err := l.Cosign(t.Context(), p); err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	written := make(chan error, 1)
	go func() {
		for n := int64(0); n < 300; n += 5 {
			err := errors.Join(l.Append(leavesOf(n, n+5)), l.Checkpoint())
			if err == nil {
				_, err = l.Cosign(t.Context(), p)
			}
			if err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for {
		v, err := Verify(l.dir, p, true, nil)
		if err != nil || len(v.Findings) > 0 {
			t.Fatalf("%v, %v", err, v)
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
