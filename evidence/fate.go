package evidence

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

// Missing says, of a token that is not found in the store in dir, whether it ever was: the leaf of a record stays in
// the log. The error wraps [ErrNotFound] where nothing of it was recorded or that has expired, and [ErrAltered] where
// it was removed. It trusts the log; an audit does not.
func Missing(ctx context.Context, dir string, t stop.Token) error {
	err := missing(ctx, dir, t)
	if err != nil {
		return fmt.Errorf("look for traces of a token: %w", err)
	}
	return nil
}

func missing(ctx context.Context, dir string, t stop.Token) error {
	r, err := newReading(dir)
	if err != nil {
		return err
	}
	// Redemptions have the locator of the report, those of tokens that were never issued too.
	times := map[uint64]time.Time{}
	want := locate(reportLabel, t)
	err = translog.Find(filepath.Join(r.dir, logName), leafLocator(want), func(n int64, at time.Time) { times[uint64(n)] = at })
	if err != nil {
		return err
	}
	if len(times) == 0 {
		return fmt.Errorf("%w: nothing of it is in the log", ErrNotFound)
	}
	err = r.walk(ctx, nil, func(_ uint64, _ int64, rec record) error {
		if rec.locator == want {
			delete(times, rec.number)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(times)) {
		what := fmt.Sprintf("record %d of it, of %s", n, times[n].Format(time.RFC3339))
		if !r.state.expired(span{n, n + 1}) {
			return fmt.Errorf("%w: %s, is in the log, and not in the store", ErrAltered, what)
		}
		err = fmt.Errorf("%w: %s, has expired", ErrNotFound, what)
	}
	if err == nil {
		err = fmt.Errorf("%w: only that somebody asked for it is in the log", ErrNotFound)
	}
	return err
}
