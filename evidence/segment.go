package evidence

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// The header of a segment, all integers big-endian. Magic and version keep place and size in every version,
// so that an old program can refuse a new store for the right reason.
//
//	 0 12  "stopd store" and a line feed
//	12  4  version
//	16  8  number of the segment, from 1
//	24  8  number of its first record
//	32  8  time it was made, Unix nanoseconds, signed
//	40  4  CRC-32C of bytes 0 to 39
const (
	segmentMagic  = "stopd store\n"
	version       = 2
	versioned     = len(segmentMagic) + 4
	segmentHeader = versioned + 28
)

type segment struct {
	number uint64
	first  uint64 // number of its first record
	made   int64  // Unix nanoseconds
}

func appendSegmentHeader(b []byte, s segment) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(append(b, segmentMagic...), version)
	b = binary.BigEndian.AppendUint64(b, s.number)
	b = binary.BigEndian.AppendUint64(b, s.first)
	b = binary.BigEndian.AppendUint64(b, uint64(s.made))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// decodeSegmentHeader decodes the header that b begins with.
func decodeSegmentHeader(b []byte) (segment, error) {
	if err := checkVersion(b, segmentMagic, version); err != nil {
		return segment{}, fmt.Errorf("decode segment header: %w", err)
	}
	if len(b) < segmentHeader || crc32.Checksum(b[:segmentHeader-4], castagnoli) != binary.BigEndian.Uint32(b[segmentHeader-4:]) {
		return segment{}, fmt.Errorf("decode segment header: %w", ErrAltered)
	}
	return segment{
		number: binary.BigEndian.Uint64(b[versioned:]),
		first:  binary.BigEndian.Uint64(b[versioned+8:]),
		made:   int64(binary.BigEndian.Uint64(b[versioned+16:])),
	}, nil
}

// checkVersion checks the magic and version that b begins with.
func checkVersion(b []byte, magic string, known uint32) error {
	if len(b) < len(magic)+4 || !bytes.HasPrefix(b, []byte(magic)) {
		return fmt.Errorf("%w: it does not begin with %q", ErrAltered, magic)
	}
	if v := binary.BigEndian.Uint32(b[len(magic):]); v != known {
		return fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v, known)
	}
	return nil
}

// maxBatch is the size in bytes from which a commit takes no further record. maxTail is therefore
// the most that a crash in the middle of a write can leave behind the last durable record: besides these
// and one record more, the batches that such a commit may open.
const (
	maxBatch = 4 << 20
	maxTail  = maxBatch + 2*(recordHeader+maxPayload)
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
	segment segment
	end     int64  // behind the last whole record or damage: a torn tail begins here
	next    uint64 // number of the record that would follow
	last    int64  // time of the last record
	size    int64
	damaged int64 // offset of the first damage that no crash explains; 0 is none
}

func (l layout) err(path string) error {
	if l.damaged == 0 {
		return nil
	}
	return altered(path, l.damaged)
}

func altered(path string, off int64) error {
	return fmt.Errorf("read %q at offset %d: %w", path, off, ErrAltered)
}

// walk gives every whole record in the first size bytes of a segment, in order, with where it is; a
// record's payload holds until yield returns. Bytes behind the last whole record are a torn tail, as
// a crash leaves one, unless they are more than one write could have been. Any other bytes that are
// no record are damage, which walk steps over, and so is a record whose number does not follow on the one
// before: something was removed or put in.
func walk(ctx context.Context, r io.ReaderAt, size int64, yield func(at int64, r record) error) (layout, error) {
	w := &window{r: r, size: size}
	b, err := w.bytes(0, segmentHeader)
	if err != nil {
		return layout{}, err
	}
	s, err := decodeSegmentHeader(b)
	if err != nil {
		return layout{}, err
	}
	l := layout{segment: s, end: int64(segmentHeader), next: s.first, last: s.made, size: size}
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
		if rec.number != l.next && l.damaged == 0 {
			l.damaged = off
		}
		if err := yield(off, rec); err != nil {
			return layout{}, err
		}
		off += rec.size()
		l.end, l.next, l.last = off, rec.number+1, rec.time
	}
	return l, nil
}
