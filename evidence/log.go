package evidence

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stopd/stopd/evidence/translog"
)

// leaf is what the log keeps of a record: its number is the leaf's. It says nothing to who does not know the token.
// The content is the record with its header, so that none of it can be changed unseen; the checksum follows from it.
func (r record) leaf() translog.Leaf {
	h := sha256.New()
	h.Write([]byte(contentLabel))
	h.Write(r.header())
	h.Write(r.payload)
	l := translog.Leaf{Time: time.Unix(0, r.time).UTC(), Locator: leafLocator(r.locator)}
	h.Sum(l.Content[:0])
	return l
}

func leafLocator(l locator) [32]byte { return sha256.Sum256(append([]byte(leafLabel), l[:]...)) }

// Log is the store's log; nil where it is left alone.
func (s *Store) Log() *translog.Log { return s.log }

// enterLog appends the leaves of records that are durable.
func (s *Store) enterLog(records []placed) {
	if s.log == nil {
		return
	}
	if n := uint64(s.log.Size()); n != records[0].number {
		s.fail(fmt.Errorf("enter record %d in the log: it has %d leaves", records[0].number, n)) // no log is better than a wrong one
		return
	}
	leaves := make([]translog.Leaf, len(records))
	for i, r := range records {
		leaves[i] = r.leaf()
	}
	if err := s.log.Append(leaves); err != nil {
		s.logger.Error("append to log", "error", err) // they are known, and written with the next checkpoint
	}
}

// createLog makes the log of a store that has one record.
func createLog(store string, key translog.Key, first record) error {
	dir := filepath.Join(store, logName)
	if err := translog.Create(dir, key); err != nil {
		return err
	}
	log, err := translog.Open(dir, key)
	if err != nil {
		return err
	}
	return errors.Join(log.Append([]translog.Leaf{first.leaf()}), log.Checkpoint())
}

// openLog opens the log and appends the leaves that it lacks: the log is derived from the records, and is behind
// them after a crash. A new store gets a new log. One that is gone, or that knows of more records than there are, is
// [ErrAltered].
func (s *Store) openLog(ctx context.Context, key translog.Key) error {
	dir := filepath.Join(s.dir, logName)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) && s.open.number == 1 && s.open.next == 1 {
		if err := translog.Create(dir, key); err != nil {
			return err
		}
	}
	log, err := translog.Open(dir, key)
	if errors.Is(err, translog.ErrAltered) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrAltered, err)
	}
	if err != nil {
		return err
	}
	have := uint64(log.Size())
	if have > s.open.next {
		return fmt.Errorf("the log has %d records, the store %d: %w", have, s.open.next, ErrAltered)
	}
	for _, c := range s.old {
		if c.contents.next > have {
			if err := s.catchUp(ctx, log, c.path, c.contents.size, &have); err != nil {
				return err
			}
		}
	}
	if err := s.catchUp(ctx, log, s.open.path, s.open.size, &have); err != nil {
		return err
	}
	if have != s.open.next {
		return fmt.Errorf("records before %d are missing, which the log does not have: %w", s.open.next, ErrAltered)
	}
	s.log = log
	return nil
}

// catchUp appends the leaves of a segment's records from number have on.
func (s *Store) catchUp(ctx context.Context, log *translog.Log, path string, size int64, have *uint64) error {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	l, err := walk(ctx, f, size, func(_ int64, r record) error {
		if r.number != *have {
			return nil
		}
		*have++
		return log.Append([]translog.Leaf{r.leaf()})
	})
	if err != nil {
		return err
	}
	return l.err(path)
}
