package evidence

import (
	"context"
	"fmt"
	"io"
	"os"
)

// append hands r to the writer and waits until it is durable. The writer sets its offset and time.
func (s *Store) append(ctx context.Context, r record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &entering{record: r, done: make(chan error, 1)}
	if err := s.enter(ctx, e); err != nil {
		return err
	}
	select {
	case err := <-e.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) enter(ctx context.Context, e *entering) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return os.ErrClosed
	}
	select {
	case s.queue <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes what enters the queue. While one batch is being synced the next one gathers, so a sync
// serves all who wait.
func (s *Store) run() {
	defer close(s.drained)
	for e := range s.queue {
		s.commit(s.gather(e))
	}
}

func (s *Store) gather(first *entering) []*entering {
	batch := []*entering{first}
	for bytes := first.record.size(); bytes < maxBatch; {
		select {
		case e, ok := <-s.queue:
			if !ok {
				return batch
			}
			batch = append(batch, e)
			bytes += e.record.size()
		default:
			return batch
		}
	}
	return batch
}

// commit makes a batch durable with one write and one sync, then answers everybody in it.
func (s *Store) commit(batch []*entering) {
	if err := s.failure(); err != nil {
		answer(batch, err)
		return
	}
	b, now := s.buffer[:0], s.now().UnixNano()
	var accepted []*entering
	for _, e := range batch {
		e.record.offset, e.record.time = s.size+int64(len(b)), now
		if s.exceeds(e.record) {
			e.done <- ErrFull
			continue
		}
		b = appendRecord(b, e.record)
		accepted = append(accepted, e)
	}
	if len(accepted) == 0 {
		return
	}
	if cap(b) <= 2*maxBatch {
		s.buffer = b
	}
	if err := s.persist(b); err != nil {
		err = fmt.Errorf("%w: %w", ErrStore, err)
		s.logger.Error("store failed, nothing more is kept", "segment", s.path, "error", err)
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		answer(accepted, err)
		return
	}
	s.size += int64(len(b))
	s.mu.Lock()
	for _, e := range accepted {
		s.admit(e.record.offset, e.record)
	}
	s.mu.Unlock()
	answer(accepted, nil)
}

func answer(batch []*entering, err error) {
	for _, e := range batch {
		e.done <- err
	}
}

// persist writes b behind the last durable record and syncs it.
func (s *Store) persist(b []byte) error {
	n, err := s.disk.writeAt(b, s.size)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		// Nobody was told of any record in it. Where this fails too, the next start cuts the tail.
		cut := s.disk.truncate(s.size)
		if cut == nil {
			cut = s.disk.sync()
		}
		if cut != nil {
			return fmt.Errorf("write segment: %w; cut it back: %w", err, cut)
		}
		return fmt.Errorf("write segment: %w", err)
	}
	if err := s.disk.sync(); err != nil {
		return fmt.Errorf("sync segment: %w", err)
	}
	return nil
}

// exceeds tells whether the store has no room for r. Redemptions and starts always have: what an
// administrator does is recorded even where no evidence can be.
func (s *Store) exceeds(r record) bool {
	bounded := r.kind == typeReport || r.kind == typeTraceback
	if !bounded || s.maxBytes == 0 || r.offset+r.size() <= s.maxBytes {
		return false
	}
	if !s.fullKnown {
		s.fullKnown = true
		s.logger.Error("store full, no more evidence is kept", "segment", s.path, "bytes", s.size, "bound", s.maxBytes)
	}
	return true
}

// admit makes the durable record at off findable.
func (s *Store) admit(off int64, r record) {
	if r.kind == typeReport || r.kind == typeTraceback {
		s.index[r.locator] = append(s.index[r.locator], off)
	}
}

func (s *Store) failure() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}
