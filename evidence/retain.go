package evidence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A segment is closed early where it would otherwise keep evidence for much longer than retention: by one
// part in so many.
const retentionParts = 16

// rotate closes the open segment and begins the next. A failure leaves the open one as it is.
func (s *Store) rotate(now time.Time) {
	o := s.open
	s.endBatch() // a segment's records are sealed with keys in the same segment
	next, state, err := newSegment(s.disk, s.dir, segment{number: o.number + 1, first: o.next, made: now.UnixNano()}, s.state)
	if err != nil {
		if noRoom(err) {
			s.alarms.full(err)
		} else {
			s.fail(err)
		}
		return
	}
	table, err := s.disk.newFile(tablePath(s.dir, o.number), o.table())
	if err != nil {
		next.file.Close()
		// Where there is no room the open segment goes on, once the new one is gone for good.
		if noRoom(err) && errors.Join(s.disk.remove(next.path), s.disk.syncDir(s.dir)) == nil {
			s.alarms.full(err)
			return
		}
		// The next start makes it. Until then there is none to find the segment's records by.
		s.fail(fmt.Errorf("close segment: %w", err))
		return
	}
	c := &closedSegment{segment: o.segment, contents: o.contents(), path: o.path, table: table}
	s.mu.Lock()
	s.old = append(s.old, c)
	s.open = next
	s.mu.Unlock()
	o.file.Close()
	s.enterLog([]placed{{state, segmentHeader}})
}

func (o *openSegment) contents() contents {
	c := contents{segment: o.number, first: o.first, next: o.next, size: o.size, last: o.last, batches: len(o.batches)}
	for _, offsets := range o.index {
		c.places += len(offsets)
	}
	return c
}

// table encodes the table of the segment as it is.
func (o *openSegment) table() []byte {
	var places []place
	for l, offsets := range o.index {
		for _, off := range offsets {
			places = append(places, place{l, off})
		}
	}
	var batches []batchPlace
	for n, off := range o.batches {
		batches = append(batches, batchPlace{n, off})
	}
	return appendTable(nil, o.contents(), places, batches)
}

// expireNow has the writer look for what has expired, and waits for it.
func (s *Store) expireNow(ctx context.Context) {
	s.inBetween(ctx, func() { s.retain(s.now()) })
}

// inBetween has the writer do something between two commits, and waits for it.
func (s *Store) inBetween(ctx context.Context, do func()) {
	done := make(chan struct{})
	select {
	case s.house <- func() { defer close(done); do() }:
		<-done
	case <-s.drained:
	case <-ctx.Done():
	}
}

// retain deletes what has expired, and closes a segment that has become old.
func (s *Store) retain(now time.Time) {
	if s.retention <= 0 || s.failure() != nil {
		return
	}
	if now.Sub(time.Unix(0, s.open.made)) >= s.retention/retentionParts && len(s.open.index) > 0 {
		s.rotate(now)
	}
	changed := s.state.clone()
	var gone, stay []*closedSegment
	for _, c := range s.old {
		if now.Sub(time.Unix(0, c.last)) < s.retention || s.state.pins(c.made, c.last) {
			stay = append(stay, c)
			continue
		}
		gone = append(gone, c)
		changed.expire(span{c.contents.first, c.contents.next})
	}
	if len(gone) == 0 || s.failure() != nil {
		return
	}
	// Of what is deleted, the leaves are all that is left.
	if s.log != nil {
		if err := s.log.Checkpoint(); err != nil {
			s.logger.Error("what has expired stays until the log is written", "error", err)
			return
		}
	}
	// It is recorded before it is done. A crash in between leaves segments that expire again.
	e := &entering{kind: typeExpiry, locator: typeLocator(typeExpiry), content: changed.encode(), done: make(chan error, 1)}
	before := s.state
	s.state = changed
	if s.commit([]*entering{e}); <-e.done != nil {
		s.state = before
		return
	}
	s.mu.Lock()
	s.old = stay
	s.mu.Unlock()
	var errs []error
	for _, c := range gone {
		// The table goes last: without it the segment would be read whole to make it again.
		errs = append(errs, s.disk.remove(c.path), s.disk.remove(tablePath(s.dir, c.number)))
		// Who reads in it meanwhile finds it closed, and the evidence gone.
		errs = append(errs, c.table.Close())
	}
	errs = append(errs, s.disk.syncDir(s.dir))
	if err := errors.Join(errs...); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.logger.Error("delete expired segments", "error", err)
	}
	s.logger.Info("evidence expired", "segments", len(gone))
}
