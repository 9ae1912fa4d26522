package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stopd/stopd/evidence/translog"
)

const (
	segmentSuffix = ".seg"
	tableSuffix   = ".loc"
	logName       = "log" // the directory of the transparency log
)

func segmentPath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d%s", n, segmentSuffix))
}

func tablePath(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d%s", n, tableSuffix))
}

// openRegular opens a file of a store. What is no regular file is [ErrAltered]: whoever reads a store is not to wait for a FIFO.
func openRegular(path string, flag int) (*os.File, error) {
	f, err := translog.OpenRegular(path, flag)
	if errors.Is(err, translog.ErrIrregular) {
		err = fmt.Errorf("%w: %w", err, ErrAltered)
	}
	return f, err
}

// segments gives the numbers of the segments in dir, in order: none if dir does not exist, or exists with
// nothing in it. A file that is no part of a store is an error.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), tempSuffix)
		if name == logName || name == "lost+found" { // the latter where the store has a file system of its own
			continue
		}
		stem, ok := strings.CutSuffix(name, segmentSuffix)
		if !ok {
			stem, ok = strings.CutSuffix(name, tableSuffix)
		}
		n, err := strconv.ParseUint(stem, 10, 64)
		if !ok || err != nil || len(stem) != 16 || n == 0 {
			return nil, fmt.Errorf("read store: %q holds %q, which is no part of a store", dir, e.Name())
		}
		if e.Name() == stem+segmentSuffix {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// existingSegments is segments for who must not make a store.
func existingSegments(dir string) ([]uint64, error) {
	numbers, err := segments(dir)
	if err == nil && len(numbers) == 0 {
		err = fmt.Errorf("read store: %q holds no segment: %w", dir, os.ErrNotExist)
	}
	return numbers, err
}

// A reading is the records of a store as they lie on the disk, for who takes no lock. What is written
// meanwhile is seen or not.
type reading struct {
	dir     string
	numbers []uint64
	damage  error // the first that was found
	next    uint64
	begun   bool
	missing []span // between segments, until a state record says that they expired
	state   state
}

func newReading(dir string) (*reading, error) {
	dir, err := RealPath(dir)
	if err != nil {
		return nil, err
	}
	numbers, err := existingSegments(dir)
	if err != nil {
		return nil, err
	}
	return &reading{dir: dir, numbers: numbers}, nil
}

// walk gives every whole record of the segments for which want is true, in order, with the number of its
// segment and its offset there. Damage is stepped over, and is what damaged gives then. Where want is false
// only the header of a segment is read.
func (r *reading) walk(ctx context.Context, want func(s segment, next int64) bool, yield func(n uint64, at int64, rec record) error) error {
	for i, n := range r.numbers {
		if err := r.segment(ctx, i, n, want, yield); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) segment(ctx context.Context, i int, n uint64, want func(s segment, next int64) bool, yield func(n uint64, at int64, rec record) error) error {
	path := segmentPath(r.dir, n)
	f, err := openRegular(path, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) && i < len(r.numbers)-1 {
		return nil // it expired just now; what follows says so
	}
	if errors.Is(err, ErrAltered) {
		r.damaged(err)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if want != nil {
		s, err := readSegmentHeader(f, path)
		if err != nil {
			return err
		}
		next := int64(1<<63 - 1)
		if i+1 < len(r.numbers) {
			if t, err := r.madeAt(r.numbers[i+1]); err == nil {
				next = t
			}
		}
		if !want(s, next) {
			return nil
		}
	}
	l, err := walk(ctx, f, info.Size(), func(at int64, rec record) error {
		if rec.kind == typeState || rec.kind == typeExpiry {
			if s, err := decodeState(rec.payload); err == nil {
				r.state = s
			}
		}
		return yield(n, at, rec)
	})
	if errors.Is(err, ErrAltered) {
		err = fmt.Errorf("read %q: %w", path, err)
		r.damaged(err)
		return nil
	}
	if err != nil {
		return err
	}
	if l.segment.number != n {
		r.damaged(fmt.Errorf("%q is segment %d: %w", path, l.segment.number, ErrAltered))
	}
	r.damaged(l.err(path))
	if i < len(r.numbers)-1 && l.end < l.size {
		r.damaged(altered(path, l.end)) // it was whole when the next was begun
	}
	if want == nil && l.segment.first != r.next {
		r.missing = append(r.missing, span{r.next, l.segment.first})
	}
	r.next, r.begun = l.next, true
	return nil
}

func (r *reading) madeAt(n uint64) (int64, error) {
	path := segmentPath(r.dir, n)
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s, err := readSegmentHeader(f, path)
	return s.made, err
}

func (r *reading) damaged(err error) {
	if r.damage == nil {
		r.damage = err
	}
}

// err gives the damage that a walk over all segments found: missing ones too.
func (r *reading) err() error {
	for _, m := range r.missing {
		if !r.state.expired(m) {
			r.damaged(fmt.Errorf("read store: records %d to %d are missing: %w", m.First, m.Next-1, ErrAltered))
		}
	}
	return r.damage
}

func readSegmentHeader(f io.ReaderAt, path string) (segment, error) {
	b := make([]byte, segmentHeader)
	if n, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return segment{}, err
	} else if s, err := decodeSegmentHeader(b[:n]); err != nil {
		return segment{}, fmt.Errorf("read %q: %w", path, err)
	} else {
		return s, nil
	}
}
