package linux

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sparing[int]
		reads := 0
		takes := 3 * time.Millisecond
		read := func(context.Context) (int, error) {
			reads++
			time.Sleep(takes)
			return reads, nil
		}
		ask := func(since time.Time) (int, time.Duration) {
			t.Helper()
			begun := time.Now()
			v, err := s.since(t.Context(), since, read)
			if err != nil {
				t.Fatal(err)
			}
			return v, time.Since(begun)
		}
		if v, took := ask(time.Now()); v != 1 || took != takes {
			t.Errorf("the first: %d after %s", v, took)
		}
		if v, took := ask(time.Now().Add(-time.Second)); v != 1 || took != 0 {
			t.Errorf("an old one will do: %d after %s", v, took)
		}
		// Many at once wait, and one reads for all.
		var all sync.WaitGroup
		now := time.Now()
		for range 50 {
			all.Go(func() {
				if v, took := ask(now); v != 2 || took != (sparingRatio-1)*takes+takes {
					t.Errorf("at once: %d after %s", v, took)
				}
			})
		}
		all.Wait()
		// What takes too long is not waited for.
		takes = sparingWait
		time.Sleep(takes)
		if v, _ := ask(time.Now()); v != 3 {
			t.Errorf("slow: %d", v)
		}
		begun := time.Now()
		if v, err := s.since(t.Context(), begun, read); v != 3 || !errors.Is(err, errSparing) || time.Since(begun) != 0 {
			t.Errorf("after a slow one: %d, %v after %s", v, err, time.Since(begun))
		}
	})
}

func TestSparingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sparing[int]
		failed := errors.New("refused")
		read := func(context.Context) (int, error) { time.Sleep(10 * time.Millisecond); return 0, failed }
		if _, err := s.since(t.Context(), time.Now(), read); !errors.Is(err, failed) {
			t.Error(err)
		}
		// Who comes first may leave: others wait for what is read.
		read = func(ctx context.Context) (int, error) { return 7, ctx.Err() }
		gone, leave := context.WithCancel(t.Context())
		time.Sleep(time.Second)
		leave()
		if v, err := s.since(gone, time.Now(), read); v != 7 || err != nil {
			t.Error(v, err)
		}
		read = func(context.Context) (int, error) { time.Sleep(10 * time.Millisecond); return 0, failed }
		if _, err := s.since(t.Context(), time.Now(), read); !errors.Is(err, failed) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.since(ctx, time.Now(), read); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
