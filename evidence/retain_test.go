package evidence

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// aging is the configuration of a store with a log, whose clock the test moves.
func aging(t *testing.T) (*elapsed, Config) {
	t.Helper()
	now, key := new(elapsed), newLogKey(t)
	began := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	return now, Config{SegmentBytes: 4 << 10, Retention: 24 * time.Hour, LogKey: &key, Now: func() time.Time { return began.Add(time.Duration(now.Load())) }}
}

// elapsed is how far the clock has been moved.
type elapsed struct{ atomic.Int64 }

func (e *elapsed) pass(d time.Duration) { e.Add(int64(d)) }

func on(t *testing.T, s *Store, n uint64) bool {
	t.Helper()
	_, err := os.Stat(segmentPath(s.dir, n))
	_, errTable := os.Stat(tablePath(s.dir, n))
	if gone := errors.Is(err, os.ErrNotExist); gone && !errors.Is(errTable, os.ErrNotExist) {
		t.Errorf("segment %d is gone, its table is not", n)
	}
	return err == nil
}

// What is older than the retention is deleted, whole segments at a time, and that is on record; what is younger stays.
func TestRetention(t *testing.T) {
	id := newIdentity(t)
	now, c := aging(t)
	s := openTest(t, c, id)
	old := fill(t, s, 4)
	now.pass(23 * time.Hour)
	s.expireNow(t.Context())
	young := fill(t, s, 8)
	found(t, s, old, id)
	now.pass(2 * time.Hour)
	s.expireNow(t.Context())
	found(t, s, young, id)
	gone := 0
	for _, token := range old {
		if _, err := s.Export(t.Context(), asking(token)); errors.Is(err, ErrNotFound) {
			gone++
		} else if err != nil {
			t.Error(err)
		}
	}
	// Some of the old are in a segment with younger ones.
	if gone < len(old)*2/3 || on(t, s, 1) || on(t, s, 2) || !on(t, s, 6) {
		t.Errorf("%d of %d are gone", gone, len(old))
	}
	all := entries(t, s.dir) // which is no damage
	if !slices.Contains(types(all), "expiry") || all[0].Number == 0 {
		t.Errorf("the first record is %d, of %v", all[0].Number, types(all))
	}
	if size := s.Log().Size(); uint64(size) != all[len(all)-1].Number+1 {
		t.Errorf("the log has %d leaves, the store %d records", size, all[len(all)-1].Number+1)
	}
	for range 2 {
		closeStore(t, s)
		s = openAt(t, s.dir, c, id)
		found(t, s, young, id)
		fill(t, s, s.current().number+2) // the state is carried on
	}
	// Everything expires in time, even where nothing is written.
	now.pass(3 * 24 * time.Hour)
	s.expireNow(t.Context())
	now.pass(3 * 24 * time.Hour)
	s.expireNow(t.Context())
	for _, e := range entries(t, s.dir) {
		if e.Type == "report" {
			t.Errorf("still there: %+v", e)
		}
	}
}

// A crash between the record of an expiry and the deletion leaves segments that expire again.
func TestRetentionInterrupted(t *testing.T) {
	id := newIdentity(t)
	now, c := aging(t)
	s := openTest(t, c, id)
	fill(t, s, 4)
	remove := s.disk.remove
	s.disk.remove = func(path string) error {
		if strings.HasSuffix(path, segmentSuffix) && strings.Contains(path, "2") {
			return errDisk
		}
		return remove(path)
	}
	now.pass(25 * time.Hour)
	s.expireNow(t.Context())
	keep(t, s, "after")
	closeStore(t, s)
	s = openAt(t, s.dir, c, id)
	entries(t, s.dir)
	s.expireNow(t.Context())
	keep(t, s, "after that")
	if on(t, s, 2) {
		t.Error("the segment is still there")
	}
}

// What is held stays, with its trace-back, until it is released; all of it is on record.
func TestHold(t *testing.T) {
	id := newIdentity(t)
	now, c := aging(t)
	s := openTest(t, c, id)
	early := fill(t, s, 3)
	now.pass(time.Hour)
	tokens := fill(t, s, 6)
	held := tokens[len(tokens)/2]
	if err := s.Hold(t.Context(), asking(held)); err != nil {
		t.Fatal(err)
	}
	if err := s.Hold(t.Context(), asking(held)); !errors.Is(err, ErrAsBefore) {
		t.Errorf("Hold again: %v", err)
	}
	now.pass(48 * time.Hour)
	s.expireNow(t.Context())
	now.pass(48 * time.Hour)
	s.expireNow(t.Context())
	for range 2 {
		found(t, s, tokens[len(tokens)/2:][:1], id)
		if _, err := s.Export(t.Context(), asking(early[0])); !errors.Is(err, ErrNotFound) {
			t.Errorf("what is not held: %v", err)
		}
		if err := s.Hold(t.Context(), asking(early[0])); !errors.Is(err, ErrNotFound) {
			t.Errorf("Hold of what is gone: %v", err)
		}
		entries(t, s.dir)
		closeStore(t, s)
		s = openAt(t, s.dir, c, id)
	}
	if err := s.Release(t.Context(), asking(held)); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), asking(held)); !errors.Is(err, ErrAsBefore) {
		t.Errorf("Release again: %v", err)
	}
	if _, err := s.Export(t.Context(), asking(held)); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was released: %v", err)
	}
	acts := map[string]int{}
	for _, e := range entries(t, s.dir) {
		acts[e.Type]++
	}
	if acts["release"] != 2 || acts["hold"] == 0 {
		t.Errorf("on record are %v", acts)
	}
}
