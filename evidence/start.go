package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// read learns what is in the store: of closed segments from their tables, of the last one from itself. It gives
// the length of the torn tail. A store that is refused later must be as it was, so what a crash left is not removed here.
func (s *Store) read(ctx context.Context, strict bool) (torn int64, err error) {
	numbers, err := segments(s.dir)
	if err != nil {
		return 0, err
	}
	if len(numbers) == 0 {
		return 0, s.makeNew()
	}
	n := len(numbers) - 1
	for _, number := range numbers[:n] {
		c, err := s.openClosed(ctx, number)
		if errors.Is(err, ErrAltered) {
			if err := s.damaged(err, strict); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		s.old = append(s.old, c)
	}
	if torn, err = s.openLast(ctx, numbers[n], strict); err != nil {
		return 0, err
	}
	return torn, s.damaged(s.missing(), strict)
}

// makeNew makes the first segment of a store that has none. Where there is a log there were records.
func (s *Store) makeNew() error {
	if _, err := os.Lstat(filepath.Join(s.dir, logName)); err == nil {
		return fmt.Errorf("read store: there is a log, and no segment: %w", ErrAltered)
	}
	if err := makeDir(s.dir); err != nil {
		return err
	}
	// Whoever had evidence here has to be told.
	s.logger.Warn("made a new store: there was none", "store", s.dir)
	var err error
	s.open, _, err = newSegment(s.disk, s.dir, segment{number: 1, made: s.now().UnixNano()}, state{})
	return err
}

// tidy removes what a crash left: the torn tail, files whose making did not end, and tables of segments that expired.
func (s *Store) tidy(torn int64) error {
	if torn > 0 {
		s.logger.Warn("closed a torn tail of the store", "segment", s.open.path, "offset", s.open.size, "bytes", torn)
		err := s.disk.truncate(s.open.file, s.open.size)
		if err == nil {
			err = s.disk.sync(s.open.file)
		}
		if err != nil {
			return fmt.Errorf("cut torn tail: %w", err)
		}
	}
	numbers, err := segments(s.dir)
	if err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+tempSuffix))
	if err != nil {
		return err
	}
	tables, err := filepath.Glob(filepath.Join(s.dir, "*"+tableSuffix))
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !slices.ContainsFunc(numbers, func(n uint64) bool { return tablePath(s.dir, n) == t }) {
			left = append(left, t)
		}
	}
	for _, path := range left {
		if err := s.disk.remove(path); err != nil {
			return err
		}
	}
	return nil
}

// damaged notes damage, and gives it back where none is to be tolerated.
func (s *Store) damaged(err error, strict bool) error {
	if s.damage == nil {
		s.damage = err
	}
	if strict {
		return err
	}
	return nil
}

// missing is the error of records that are neither there nor expired.
func (s *Store) missing() error {
	var next uint64
	check := func(first uint64) error {
		gap := span{next, first}
		if first < next || first > next && !s.state.expired(gap) {
			return fmt.Errorf("read store: records %d to %d are missing: %w", gap.First, int64(gap.Next)-1, ErrAltered)
		}
		return nil
	}
	for _, c := range s.old {
		if err := check(c.contents.first); err != nil {
			return err
		}
		next = c.contents.next
	}
	return check(s.open.first)
}

// openClosed opens the table of a segment, and makes it where a crash left none.
func (s *Store) openClosed(ctx context.Context, number uint64) (*closedSegment, error) {
	c := &closedSegment{path: segmentPath(s.dir, number)}
	f, err := openRegular(c.path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if c.segment, err = readSegmentHeader(f, c.path); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	table := tablePath(s.dir, number)
	c.table, err = openRegular(table, os.O_RDONLY)
	if err == nil {
		c.contents, err = readTableHeader(c.table)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errOldTable) {
		if c.table != nil {
			c.table.Close()
		}
		s.logger.Warn("made the table of a segment anew", "segment", c.path)
		if c.table, err = s.rebuild(ctx, f, info.Size(), c.path, table); err == nil {
			c.contents, err = readTableHeader(c.table)
		}
	}
	if c.table == nil {
		return nil, err
	}
	if err == nil && (c.segment.number != number || c.contents.segment != number || c.contents.first != c.segment.first || c.contents.size != info.Size()) {
		err = fmt.Errorf("segment and table do not fit: %w", ErrAltered)
	}
	if err != nil {
		c.table.Close()
		return nil, fmt.Errorf("read %q: %w", table, err)
	}
	return c, nil
}

func readTableHeader(f *os.File) (contents, error) {
	info, err := f.Stat()
	if err != nil {
		return contents{}, err
	}
	b := make([]byte, tableHeader)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return contents{}, err
	}
	return decodeTableHeader(b[:n], info.Size())
}

// rebuild makes the table of a segment from itself.
func (s *Store) rebuild(ctx context.Context, f *os.File, size int64, path, table string) (*os.File, error) {
	o := openSegment{index: map[locator][]int64{}, batches: map[uint64]int64{}}
	l, err := walk(ctx, f, size, func(at int64, r record) error { o.admit(at, r); return nil })
	if err == nil {
		err = l.err(path)
	}
	if err == nil && l.end < l.size {
		err = altered(path, l.end)
	}
	if err != nil {
		return nil, err
	}
	o.segment, o.size, o.next, o.last = l.segment, l.size, l.next, l.last
	return s.disk.newFile(table, o.table())
}

// openLast opens the segment that is written and reads the state. It gives the length of the torn tail.
func (s *Store) openLast(ctx context.Context, number uint64, strict bool) (torn int64, err error) {
	path := segmentPath(s.dir, number)
	f, err := openRegular(path, os.O_RDWR)
	if err != nil {
		return 0, err
	}
	o := &openSegment{path: path, file: f, index: map[locator][]int64{}, batches: map[uint64]int64{}}
	s.open = o // so that it is closed
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	began := false
	l, err := walk(ctx, f, info.Size(), func(at int64, r record) error {
		o.admit(at, r)
		if r.kind != typeState && r.kind != typeExpiry {
			return nil
		}
		st, err := decodeState(r.payload)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrAltered, err)
		}
		began, s.state = true, st
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read %q: %w", path, err)
	}
	if l.segment.number != number || !began {
		return 0, fmt.Errorf("read %q: %w", path, ErrAltered)
	}
	if err := s.damaged(l.err(path), strict); err != nil {
		return 0, err
	}
	o.segment, o.size, o.next, o.last = l.segment, l.end, l.next, l.last
	return l.size - l.end, nil
}

// newSegment makes a segment that begins with a record of the store's state.
func newSegment(d disk, dir string, g segment, st state) (*openSegment, record, error) {
	r := record{kind: typeState, number: g.first, time: g.made, locator: typeLocator(typeState), payload: st.encode()}
	b := appendRecord(appendSegmentHeader(nil, g), r)
	path := segmentPath(dir, g.number)
	f, err := d.newFile(path, b)
	if err != nil {
		return nil, record{}, fmt.Errorf("make segment %q: %w", filepath.Base(path), err)
	}
	o := &openSegment{segment: g, path: path, file: f, size: int64(len(b)), index: map[locator][]int64{}, batches: map[uint64]int64{}}
	o.admit(int64(segmentHeader), r)
	return o, r, nil
}

// startPayload is the payload of a start record, which is not sealed: [List] shows it, and it says
// nothing of a report.
type startPayload struct {
	Cut int64 `json:"cut"` // bytes of torn tail removed
}

func (s *Store) recordStart(cut int64) error {
	payload, err := json.Marshal(startPayload{Cut: cut})
	if err != nil {
		return err
	}
	e := &entering{kind: typeStart, locator: typeLocator(typeStart), content: payload, done: make(chan error, 1)}
	s.commit([]*entering{e})
	return <-e.done
}
