package evidence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	segmentName = "0000000000000001.seg"
	segmentTemp = segmentName + ".tmp" // a segment whose creation did not end
)

// maxBatch is the size in bytes from which a batch takes no further record. maxTail is therefore
// the most that a crash in the middle of a write can leave behind the last durable record.
const (
	maxBatch = 4 << 20
	maxTail  = maxBatch + recordHeader + maxPayload
)

// window reads a file in order through one buffer.
type window struct {
	r    io.ReaderAt
	size int64
	at   int64
	b    []byte
}

const windowBytes = 1 << 18

// bytes gives n bytes at off, fewer only at the end of the file. They hold until the next call.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-off))
	if off < w.at || off+int64(n) > w.at+int64(len(w.b)) {
		want := int(min(int64(max(n, windowBytes)), w.size-off))
		if cap(w.b) < want {
			w.b = make([]byte, want)
		}
		w.at, w.b = off, w.b[:want]
		if got, err := w.r.ReadAt(w.b, off); got < want {
			w.b = w.b[:0]
			return nil, fmt.Errorf("read segment at offset %d: %w", off, err)
		}
	}
	return w.b[off-w.at:][:n], nil
}

// record reads the record at off. ok is false where no whole record is; err is of the reading.
func (w *window) record(off int64) (r record, ok bool, err error) {
	b, err := w.bytes(off, recordHeader)
	if err != nil {
		return record{}, false, err
	}
	n, err := payloadLength(b)
	if err != nil || off+recordHeader+int64(n) > w.size {
		return record{}, false, nil
	}
	if b, err = w.bytes(off, recordHeader+n); err != nil {
		return record{}, false, err
	}
	if r, err = decodeRecord(b); err != nil {
		return record{}, false, nil
	}
	return r, true, nil
}

// next gives the offset of the first whole record at or behind off, or the file's size.
func (w *window) next(ctx context.Context, off int64) (int64, error) {
	for off < w.size {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b, err := w.bytes(off, windowBytes)
		if err != nil {
			return 0, err
		}
		i := bytes.Index(b, []byte(recordMagic))
		if i < 0 {
			// The magic may lie across two windows.
			off += int64(max(len(b)-len(recordMagic)+1, 1))
			continue
		}
		off += int64(i)
		if _, ok, err := w.record(off); err != nil || ok {
			return off, err
		}
		off++
	}
	return w.size, nil
}

// layout is what a walk over a segment found besides whole records.
type layout struct {
	end     int64 // behind the last whole record or damage: a torn tail begins here
	size    int64
	damaged int64 // offset of the first damage that no crash explains; 0 is none
}

func (l layout) err(path string) error {
	if l.damaged == 0 {
		return nil
	}
	return fmt.Errorf("read %q at offset %d: %w", path, l.damaged, ErrAltered)
}

// walk gives every whole record in the first size bytes of a segment, in order, with where it is; a
// record's payload holds until yield returns. Bytes behind the last whole record are a torn tail, as
// a crash leaves one, unless they are more than one write could have been. Any other bytes that are
// no record are damage, which walk steps over, and so is a record that is not where it was written:
// something before it was removed or put in.
func walk(ctx context.Context, r io.ReaderAt, size int64, yield func(at int64, r record) error) (layout, error) {
	w := &window{r: r, size: size}
	b, err := w.bytes(0, segmentHeader)
	if err != nil {
		return layout{}, err
	}
	if err := checkSegmentHeader(b); err != nil {
		return layout{}, err
	}
	l := layout{end: int64(segmentHeader), size: size}
	for off := l.end; off < size; {
		if err := ctx.Err(); err != nil {
			return layout{}, err
		}
		rec, ok, err := w.record(off)
		if err != nil {
			return layout{}, err
		}
		if !ok {
			next, err := w.next(ctx, off+1)
			if err != nil {
				return layout{}, err
			}
			if next < size || size-off > maxTail {
				l.end = next
				if l.damaged == 0 {
					l.damaged = off
				}
			}
			off = next
			continue
		}
		if rec.offset != off && l.damaged == 0 {
			l.damaged = off
		}
		if err := yield(off, rec); err != nil {
			return layout{}, err
		}
		off += rec.size()
		l.end = off
	}
	return l, nil
}

// segmentPath gives the path of the store's one segment. It is empty if dir does not exist, or
// exists with nothing in it.
func segmentPath(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read store: %w", err)
	}
	path, other := "", ""
	for _, e := range entries {
		switch e.Name() {
		case segmentName:
			path = filepath.Join(dir, segmentName)
		case segmentTemp, "lost+found": // the latter where the store has a file system of its own
		default:
			other = e.Name()
		}
	}
	if other == "" {
		return path, nil
	}
	if ok, _ := filepath.Match("*.seg", other); ok {
		return "", fmt.Errorf("read store: %w: %q has a segment %q", ErrVersion, dir, other)
	}
	return "", fmt.Errorf("read store: %q holds %q, which is no part of a store", dir, other)
}

// existingSegment is segmentPath for who must not make a store.
func existingSegment(dir string) (string, error) {
	path, err := segmentPath(dir)
	if err == nil && path == "" {
		err = fmt.Errorf("read store: %q holds no segment: %w", dir, os.ErrNotExist)
	}
	return path, err
}

// createSegment makes dir, where it is missing, and its empty first segment, durably.
func createSegment(dir string) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	temp := filepath.Join(dir, segmentTemp)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(appendSegmentHeader(nil))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, segmentName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes dir and the parents it lacks, each for its owner alone, durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	parent := filepath.Dir(dir)
	if errors.Is(err, os.ErrNotExist) && parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return err
	}
	return syncDir(parent)
}
