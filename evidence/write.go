package evidence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// append hands e to the writer and waits until it is durable.
func (s *Store) append(ctx context.Context, e *entering) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.done = make(chan error, 1)
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

// run writes what enters the queue. While one commit is being synced the next one gathers, so a sync
// serves all who wait. In between it erases keys and deletes what has expired.
func (s *Store) run() {
	defer close(s.drained)
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-s.queue:
			if !ok {
				return
			}
			s.commit(s.gather(e))
		case <-s.expiry.C:
			s.endBatch()
		case <-s.sweeping.C:
			s.sweep()
		case <-tick.C:
			s.retain(s.now())
		case do := <-s.house:
			do()
		}
	}
}

func (s *Store) gather(first *entering) []*entering {
	group := []*entering{first}
	for bytes := len(first.content); bytes < maxBatch; {
		select {
		case e, ok := <-s.queue:
			if !ok {
				return group
			}
			group = append(group, e)
			bytes += len(e.content) + recordHeader
		default:
			return group
		}
	}
	return group
}

// A commit is records that become durable with one write.
type commit struct {
	now      time.Time
	b        []byte
	records  []placed // in order
	accepted []*entering
	state    state
}

// placed is a record of a commit, and where it is in its bytes.
type placed struct {
	record
	at int
}

// commit makes a group durable with one write and one sync, then answers everybody in it.
func (s *Store) commit(group []*entering) {
	if err := s.failure(); err != nil {
		answer(group, err)
		return
	}
	now := s.now()
	if s.open.size >= s.full {
		s.rotate(now) // where it fails for want of room the segment goes on
	}
	c := &commit{now: now, b: s.buffer[:0], state: s.state.clone()}
	s.room.used = s.bytes()
	s.room.bound = s.bound()
	for _, e := range group {
		if err := s.add(c, e); err != nil {
			e.done <- err
			continue
		}
		c.accepted = append(c.accepted, e)
	}
	if len(c.records) == 0 {
		return
	}
	if cap(c.b) <= 2*maxBatch {
		s.buffer = c.b
	}
	if err := s.disk.append(s.open.file, c.b, s.open.size); err != nil {
		s.endBatch() // its numbers will be used again, with another key
		for _, e := range c.accepted {
			s.refund(e, now)
		}
		if errors.Is(err, ErrFull) {
			s.alarms.full(err)
		} else {
			err = s.fail(err)
		}
		answer(c.accepted, err)
		return
	}
	s.mu.Lock()
	for _, r := range c.records {
		s.open.admit(s.open.size+int64(r.at), r.record)
	}
	s.open.size += int64(len(c.b))
	s.mu.Unlock()
	s.state = c.state
	s.enterLog(c.records)
	if slices.ContainsFunc(c.accepted, func(e *entering) bool { return e.payer != nil }) {
		s.alarms.free(s.room)
	}
	answer(c.accepted, nil)
}

func answer(group []*entering, err error) {
	for _, e := range group {
		e.done <- err
	}
}

// add adds what enters to a commit, or says why it is not kept.
func (s *Store) add(c *commit, e *entering) error {
	changed := c.state.clone()
	if e.change != nil {
		if err := e.change(&changed); err != nil {
			return err
		}
	}
	if e.payer != nil {
		if err := s.room.admit(*e.payer, e.size(), c.now); err != nil {
			s.alarms.refused(err, c.now)
			return err
		}
	}
	r := record{kind: e.kind, locator: e.locator}
	if e.kind.sealed() {
		if err := s.seal(c, r, e.content); err != nil {
			s.refund(e, c.now)
			return err
		}
	} else {
		r.payload = e.content
		s.place(c, r)
	}
	e.number = c.records[len(c.records)-1].number
	if e.promise {
		s.room.delivered()
	}
	if e.change != nil {
		c.state = changed
		r := record{kind: typeState, locator: typeLocator(typeState), payload: changed.encode()}
		s.place(c, r)
	}
	return nil
}

func (e *entering) size() int64 { return recordHeader + int64(len(e.content)) + sealOverhead }

// refund takes back what was charged for a record that is not kept.
func (s *Store) refund(e *entering, now time.Time) {
	if e.payer == nil {
		return
	}
	n := e.size()
	if e.payer.Traceback {
		n += tracebackRoom
	}
	s.room.charge(*e.payer, -n, now)
}

// place gives a record its number and time, and appends it to the commit.
func (s *Store) place(c *commit, r record) {
	r.number, r.time = s.open.next+uint64(len(c.records)), c.now.UnixNano()
	at := len(c.b)
	c.b = appendRecord(c.b, r)
	c.records = append(c.records, placed{r, at})
}

// seal seals content into the open batch, and opens one where there is none.
func (s *Store) seal(c *commit, r record, content []byte) error {
	if s.batch != nil && s.batch.over(c.now) {
		s.endBatch()
	}
	if s.batch == nil {
		number := s.open.next + uint64(len(c.records))
		b, payload, err := newBatch(number, c.now, s.recipients)
		if err != nil {
			return err
		}
		s.batch = b
		if !b.locked {
			s.swapped.Do(func() {
				s.logger.Warn("the system does not keep keys out of swap: who reads swap may find those of reports that are kept by then")
			})
		}
		s.expiry.Reset(batchTime)
		r := record{kind: typeBatch, locator: typeLocator(typeBatch), payload: payload}
		s.room.used += recordHeader + int64(len(payload))
		s.place(c, r)
	}
	r.batch = s.batch.number
	r.number, r.time = s.open.next+uint64(len(c.records)), c.now.UnixNano()
	at := len(c.b)
	b, err := sealRecord(c.b, r, s.batch.key(), content)
	c.b = b
	if err != nil {
		return err
	}
	r.payload = b[at+recordHeader:]
	c.records = append(c.records, placed{r, at})
	s.batch.records++
	return nil
}

// endBatch erases the key of the open batch.
func (s *Store) endBatch() {
	if s.batch == nil {
		return
	}
	if err := s.batch.close(); err != nil {
		s.logger.Error("close batch", "error", err)
	}
	s.batch = nil
	// Under load batches close faster than is worth a collection; the last one is swept in time.
	if s.unswept++; s.unswept == 1 {
		s.sweeping.Reset(batchTime)
	}
}

// sweep erases what is left of the keys of batches that have closed.
func (s *Store) sweep() {
	if s.unswept > 0 {
		sweep()
	}
	s.unswept = 0
}

// fail ends the store's work.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrStore, err)
	s.logger.Error("store failed, nothing more is kept", "segment", s.open.path, "error", err)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return err
}

func (s *Store) failure() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.failed
}

// bound is how large the store may become: as large as was set, and no larger than the file system lets it. Of that, too,
// a part is kept for what administrators do: evidence that fills the disk could not be redeemed.
func (s *Store) bound() int64 {
	if s.most == 0 {
		return 0
	}
	left, err := s.disk.left(s.dir)
	if err != nil {
		return s.most // a write tells
	}
	if have := s.bytes(); left < s.most-have {
		return have + left
	}
	return s.most
}

// bytes is the size of all segments and their tables.
func (s *Store) bytes() int64 {
	n := s.open.size
	for _, c := range s.old {
		n += c.contents.size + c.contents.bytes()
	}
	return n
}

// alarms say once that something began, and once that it ended.
type alarms struct {
	logger interface {
		Error(string, ...any)
		Warn(string, ...any)
		Info(string, ...any)
	}
	isFull bool
	shared time.Time // when it was said last that somebody has his share
}

// shareAlarm is how often it is said that somebody has his share.
const shareAlarm = time.Hour

func (a *alarms) refused(err error, now time.Time) {
	if errors.Is(err, ErrFull) {
		a.full(err)
		return
	}
	if now.Sub(a.shared) >= shareAlarm {
		a.shared = now
		a.logger.Warn("a requester or user has his share of the store: what he asks for beyond it is not kept", "error", err)
	}
}

func (a *alarms) full(err error) {
	if !a.isFull {
		a.isFull = true
		a.logger.Error("the store is full: answers are decoys that nothing stands for, until evidence expires or there is more room", "error", err)
	}
}

// free ends the alarm once there is room again.
func (a *alarms) free(r *room) {
	if a.isFull && (r.bound == 0 || r.free() >= r.bound/(4*reserve)) {
		a.isFull = false
		a.logger.Info("the store takes evidence again")
	}
}
