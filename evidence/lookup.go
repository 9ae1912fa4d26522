package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/stopd/stopd"
)

// A source is a segment that is read from.
type source struct {
	path  string
	file  *os.File
	batch func(number uint64) (int64, bool, error)
}

// A tokenRecords is the records of a token, and the batches that seal them, each in the order of numbers.
type tokenRecords struct{ batches, records []record }

// collect gives the records of t, those with numbers that are wanted. Where damage may hide some the error wraps
// [ErrAltered], beside those that are sound. A token without a report is [ErrNotFound].
func (s *Store) collect(t stop.Token, wanted func(number uint64) bool) (tokenRecords, error) {
	damage := s.damage
	note := func(err error) error {
		if err == nil || !errors.Is(err, ErrAltered) {
			return err
		}
		if damage == nil {
			damage = err
		}
		return nil
	}
	sources, offsets, err := s.find(locate(reportLabel, t), locate(tracebackLabel, t))
	defer func() {
		for _, in := range sources {
			in.file.Close()
		}
	}()
	if err := note(err); err != nil {
		return tokenRecords{}, err
	}
	var f tokenRecords
	reports, tracebacks := 0, 0
	for i, in := range sources {
		for _, off := range offsets[i] {
			r, err := in.at(off)
			if err == nil && !wanted(r.number) {
				continue
			}
			var b record
			if err == nil {
				b, err = s.sound(in, r, t, off, note)
			}
			if r.kind == typeTraceback {
				tracebacks++
			}
			if err != nil {
				if err := note(err); err != nil {
					return tokenRecords{}, err
				}
				continue
			}
			if r.kind == typeReport {
				reports++
			}
			f.batches, f.records = append(f.batches, b), append(f.records, r)
		}
	}
	if reports == 0 {
		if damage != nil {
			return tokenRecords{}, damage
		}
		if tracebacks > 0 {
			return tokenRecords{}, fmt.Errorf("%w: a trace-back without its report", ErrAltered)
		}
		return tokenRecords{}, ErrNotFound
	}
	byNumber := func(a, b record) int { return cmp.Compare(a.number, b.number) }
	slices.SortFunc(f.batches, byNumber)
	slices.SortFunc(f.records, byNumber)
	f.batches = slices.CompactFunc(f.batches, func(a, b record) bool { return a.number == b.number })
	return f, damage
}

// sound gives the batch of a record that was read at off, and says why the record is not one of t. What a damaged log
// cannot prove is noted.
func (s *Store) sound(in *source, r record, t stop.Token, off int64, note func(error) error) (record, error) {
	b, err := in.batchOf(r)
	if err != nil {
		return record{}, err
	}
	if !r.kind.located() || r.locator != r.kind.locatorOf(t) {
		return record{}, altered(in.path, off)
	}
	unproven, err := s.inLog(r)
	note(unproven)
	return b, err
}

// find gives the segments that hold records of the locators, and their offsets. An error beside what is found is of
// damage, which may hide more.
func (s *Store) find(wants ...locator) (sources []*source, offsets [][]int64, damage error) {
	s.mu.RLock()
	old := s.old
	var inOpen []int64
	for _, want := range wants {
		inOpen = append(inOpen, s.open.index[want]...)
	}
	open := s.open
	s.mu.RUnlock()
	note := func(err error) {
		if err != nil && damage == nil {
			damage = err
		}
	}
	for _, c := range old {
		var here []int64
		for _, want := range wants {
			offs, err := c.contents.find(c.table, want)
			if errors.Is(err, os.ErrClosed) {
				break // it expired just now
			}
			note(err)
			here = append(here, offs...)
		}
		if len(here) == 0 {
			continue
		}
		f, err := os.Open(c.path)
		if errors.Is(err, os.ErrNotExist) {
			continue // it expired just now
		}
		if err != nil {
			note(err)
			continue
		}
		sources = append(sources, &source{c.path, f, func(n uint64) (int64, bool, error) { return c.contents.batch(c.table, n) }})
		offsets = append(offsets, here)
	}
	if len(inOpen) > 0 {
		f, err := os.Open(open.path)
		if err != nil {
			note(err)
			return sources, offsets, damage
		}
		sources = append(sources, &source{open.path, f, func(n uint64) (int64, bool, error) {
			s.mu.RLock()
			defer s.mu.RUnlock()
			off, ok := open.batches[n]
			return off, ok, nil
		}})
		offsets = append(offsets, inOpen)
	}
	return sources, offsets, damage
}

// batchOf gives the record of a record's batch.
func (in *source) batchOf(r record) (record, error) {
	off, ok, err := in.batch(r.batch)
	if err != nil {
		return record{}, err
	}
	if !ok {
		return record{}, fmt.Errorf("read %q: %w: batch %d is missing", in.path, ErrAltered, r.batch)
	}
	b, err := in.at(off)
	if err == nil && (b.kind != typeBatch || b.number != r.batch) {
		err = altered(in.path, off)
	}
	return b, err
}

// at reads the record at off anew: what is remembered is where it is, not that it is still whole.
func (in *source) at(off int64) (record, error) {
	b := make([]byte, recordHeader)
	_, err := in.file.ReadAt(b, off)
	if err == nil {
		var n int
		if n, err = payloadLength(b); err == nil {
			b = make([]byte, recordHeader+n)
			_, err = in.file.ReadAt(b, off)
		}
	}
	var r record
	if err == nil {
		r, err = decodeRecord(b)
	}
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		return record{}, err // the disk's failure says nothing of the evidence
	}
	if err != nil {
		return record{}, fmt.Errorf("%w: %w", altered(in.path, off), err)
	}
	return r, nil
}
