package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stopd/stopd/evidence/translog"
)

// A storeFiles is what lies in a store's directory, by name.
type storeFiles struct {
	segments []uint64 // in order
	tables   map[uint64]bool
}

// list looks at what lies in the store's directory. Of the log's own files the log tells.
func (a *auditor) list() (storeFiles, error) {
	in, err := os.ReadDir(a.dir)
	if err != nil {
		return storeFiles{}, err
	}
	files := storeFiles{tables: map[uint64]bool{}}
	for _, e := range in {
		name, temporary := strings.CutSuffix(e.Name(), tempSuffix)
		n, suffix := partOf(name)
		switch {
		case (name == logName || name == "lost+found") && e.IsDir():
		case n == 0:
			a.find(translog.Foreign, e.Name(), "a store has no such file")
		case !e.Type().IsRegular():
			a.find(translog.Altered, e.Name(), "it is no regular file")
		case temporary && !a.Writing:
			a.find(translog.Uncovered, e.Name(), "it was being written: %s", translog.CrashOrCut)
		case temporary:
		case suffix == segmentSuffix:
			files.segments = append(files.segments, n)
		default:
			files.tables[n] = true
		}
	}
	slices.Sort(files.segments)
	for n := range files.tables {
		if !slices.Contains(files.segments, n) && !a.Writing {
			a.find(translog.Foreign, filepath.Base(tablePath(a.dir, n)), "there is no segment that it is of")
		}
	}
	return files, nil
}

// partOf gives the number of a segment or table, and which of the two: 0 where a name is of neither.
func partOf(name string) (uint64, string) {
	for _, suffix := range []string{segmentSuffix, tableSuffix} {
		if stem, ok := strings.CutSuffix(name, suffix); ok && len(stem) == 16 {
			if n, err := strconv.ParseUint(stem, 10, 64); err == nil {
				return n, suffix
			}
		}
	}
	return 0, ""
}

// A foundRecord is a record that was read.
type foundRecord struct {
	path   string // below the store
	at     int64  // offset
	number uint64
	leaf   translog.Leaf // that the log has to have
}

// records gives all whole records that have not been given before, in the order of their files.
func (a *auditor) records(yield func(foundRecord) bool) {
	a.files, a.err = a.list()
	if a.err != nil {
		return
	}
	if len(a.files.segments) == 0 {
		a.find(translog.Removed, "", "a store has a segment from its first moment")
	}
	for i, n := range a.files.segments {
		w := walker{auditor: a, name: filepath.Base(segmentPath(a.dir, n)), number: n, yield: yield}
		if a.err = w.run(i); a.err != nil {
			return
		}
	}
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// A walker reads one segment.
type walker struct {
	*auditor
	name   string
	number uint64
	yield  func(foundRecord) bool
	head   segment
	end    int64 // behind the last record
	begun  bool
	astray bool        // the record before is not in its place
	open   openSegment // as its table has to be
}

func (w *walker) run(i int) error {
	path := filepath.Join(w.dir, w.name)
	f, err := openRegular(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) && w.Writing {
		return nil // it expired just now, or what follows lacks it
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w.Segments++
	after, read := w.useless, w.read // after a useless header nobody can tell what is between
	w.last, w.tail, w.useless, w.read = w.name, 0, true, w.number
	if w.head, err = readSegmentHeader(f, path); err != nil {
		if !errors.Is(err, ErrAltered) && !errors.Is(err, ErrVersion) {
			return err
		}
		w.find(translog.Altered, w.name, "%v", err)
		return nil
	}
	if w.head.number != w.number {
		w.find(translog.Altered, w.name, "it is segment %d", w.head.number)
	}
	w.useless = false
	w.before(read, after)
	w.end = int64(segmentHeader)
	w.open = openSegment{segment: w.head, index: map[locator][]int64{}, batches: map[uint64]int64{}}
	if _, err := walk(w.ctx, f, info.Size(), w.record); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	w.from, w.tail = w.end, info.Size()-w.end
	if i == len(w.files.segments)-1 {
		return nil
	}
	if w.tail > 0 {
		w.find(translog.Altered, w.name, "%d octets at offset %d are no record", w.tail, w.end)
	}
	w.open.size = info.Size()
	return w.table()
}

// before looks at what is between this segment and the one read before it: after one of which the header is
// useless, that is not known.
func (w *walker) before(read uint64, after bool) {
	s := span{w.Next, w.head.first}
	name := filepath.Base(segmentPath(w.dir, w.number-1))
	switch {
	case s.First == s.Next:
	case s.First > s.Next:
		w.find(translog.Altered, w.name, "it begins with record %d, and %d are before it", s.Next, s.First)
		w.astray = true
	case after:
	case read > 0 && read == w.number-1:
		w.gaps = append(w.gaps, gap{s, Cut, name, "from its end", false})
	default:
		w.gaps = append(w.gaps, gap{s, translog.Removed, name, "and did not expire", true})
	}
	w.Next = max(w.Next, s.Next)
}

// record takes a whole record of the segment.
func (w *walker) record(at int64, r record) error {
	s := span{w.Next, r.number}
	switch {
	case at > w.end:
		w.find(translog.Altered, w.name, "%d octets at offset %d are no record, before record %d", at-w.end, w.end, r.number)
	case s.First < s.Next:
		w.gaps = append(w.gaps, gap{s, translog.Removed, w.name, fmt.Sprintf("from before offset %d", at), false})
	case s.First > s.Next && !w.astray:
		w.misplaced(at, r.number)
	}
	w.astray = s.First > s.Next
	if !w.begun && (r.kind != typeState || r.time != w.head.made || r.number != w.head.first) {
		w.find(translog.Altered, w.name, "its header is not that of its first record")
	}
	w.begun = true
	if r.kind == typeState || r.kind == typeExpiry {
		if st, err := decodeState(r.payload); err == nil {
			w.state = st
		}
	}
	w.end = at + r.size()
	w.Next = max(w.Next, r.number+1)
	w.Records++
	w.open.admit(at, r)
	if !w.yield(foundRecord{w.name, at, r.number, r.leaf()}) {
		return errEnough
	}
	return nil
}

// misplaced is for a record that belongs before others: it is not gone.
func (w *walker) misplaced(at int64, number uint64) {
	for i, g := range w.gaps {
		if g.First <= number && number < g.Next && g.path == w.name {
			w.gaps = slices.Delete(w.gaps, i, i+1)
			break
		}
	}
	w.find(translog.Altered, w.name, "record %d, at offset %d, is not in its place", number, at)
}

// table compares the table of a closed segment with the one that it has to have.
func (w *walker) table() error {
	name := filepath.Base(tablePath(w.dir, w.number))
	want := w.open.table()
	f, err := openRegular(filepath.Join(w.dir, name), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		// Of what expires the table goes last: one that is gone before its segment was taken.
		_, err := os.Stat(filepath.Join(w.dir, w.name))
		if errors.Is(err, fs.ErrNotExist) && w.Writing {
			return nil
		}
		if err == nil {
			w.lacks = append(w.lacks, lack{name, w.Next})
		}
		return err
	}
	if errors.Is(err, ErrAltered) {
		return nil // the list of files tells
	}
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, int64(len(want))+1))
	if err != nil {
		return err
	}
	if _, err := decodeTableHeader(got, int64(len(got))); errors.Is(err, errOldTable) && !w.Writing {
		w.find(translog.Uncovered, name, "it is of another version: start stopd to make it anew")
	} else if !bytes.Equal(got, want) {
		w.find(translog.Altered, name, "it is not the table of its segment")
	}
	return nil
}

// newestState reads the state from the segments that are there now.
func (a *auditor) newestState() error {
	r, err := newReading(a.dir)
	if err != nil {
		return err
	}
	// Only the last segment is read whole.
	last := func(_ segment, next int64) bool { return next == math.MaxInt64 }
	err = r.walk(a.ctx, last, func(uint64, int64, record) error { return nil })
	if err == nil {
		a.state = r.state
	}
	return err
}
