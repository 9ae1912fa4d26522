package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/stopd/stopd"
)

// The header of a segment is its magic and its version. Both keep place and size in every version,
// so that an old program can refuse a new store for the right reason.
const (
	segmentMagic  = "stopd store\n"
	version       = 1
	segmentHeader = len(segmentMagic) + 4
)

// The header of a record, all integers big-endian:
//
//	 0  4  magic "srec"
//	 4  4  length of the payload
//	 8  4  type
//	12  8  offset of the record in the segment it was first written to
//	20  8  time, Unix nanoseconds, signed
//	28 32  locator
//	60  4  CRC-32C of bytes 0 to 59 and the payload
//
// The offset tells a reader that records were removed or moved; the magic lets it find the next
// whole record behind a damaged one.
const (
	recordMagic  = "srec"
	recordHeader = 64
	sumAt        = 60
	// maxPayload bounds the memory that a length read from disk can claim.
	maxPayload = 16 << 20
)

type recordType uint32

const (
	typeReport     recordType = 1
	typeTraceback  recordType = 2
	typeRedemption recordType = 3
	typeStart      recordType = 4
)

var typeNames = map[recordType]string{
	typeReport:     "report",
	typeTraceback:  "traceback",
	typeRedemption: "redemption",
	typeStart:      "start",
}

func (t recordType) String() string { return typeNames[t] }

// A locator finds the records of a token for who knows the token. It says nothing to anyone else.
type locator [sha256.Size]byte

// Two labels, so that nothing on disk links a report to its trace-backs.
const (
	reportLabel    = "stopd store v1 report\x00"
	tracebackLabel = "stopd store v1 traceback\x00"
)

func locate(label string, t stop.Token) locator {
	return sha256.Sum256(append([]byte(label), t[:]...))
}

type record struct {
	kind    recordType
	offset  int64
	time    int64 // Unix nanoseconds
	locator locator
	payload []byte
}

func (r record) size() int64 { return recordHeader + int64(len(r.payload)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.payload)))
	b = binary.BigEndian.AppendUint32(b, uint32(r.kind))
	b = binary.BigEndian.AppendUint64(b, uint64(r.offset))
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	b = append(b, r.locator[:]...)
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, r.payload)
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(b, r.payload...)
}

// payloadLength gives the length of the payload that a record's header announces. It checks only
// what must hold before that many bytes are read.
func payloadLength(header []byte) (int, error) {
	if len(header) < recordHeader {
		return 0, errors.New("decode record: header is incomplete")
	}
	if string(header[:4]) != recordMagic {
		return 0, fmt.Errorf("decode record: magic is %q", header[:4])
	}
	n := binary.BigEndian.Uint32(header[4:])
	if n > maxPayload {
		return 0, fmt.Errorf("decode record: payload of %d bytes exceeds %d", n, maxPayload)
	}
	return int(n), nil
}

// decodeRecord decodes the record that b begins with. The payload is a part of b. On failure the
// record is zero.
func decodeRecord(b []byte) (record, error) {
	n, err := payloadLength(b)
	if err != nil {
		return record{}, err
	}
	if len(b) < recordHeader+n {
		return record{}, fmt.Errorf("decode record: %d of %d bytes", len(b), recordHeader+n)
	}
	payload := b[recordHeader : recordHeader+n : recordHeader+n]
	sum := crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, payload)
	if sum != binary.BigEndian.Uint32(b[sumAt:]) {
		return record{}, errors.New("decode record: checksum does not match")
	}
	r := record{
		kind:    recordType(binary.BigEndian.Uint32(b[8:])),
		offset:  int64(binary.BigEndian.Uint64(b[12:])),
		time:    int64(binary.BigEndian.Uint64(b[20:])),
		locator: locator(b[28:sumAt]),
		payload: payload,
	}
	if _, known := typeNames[r.kind]; !known {
		return record{}, fmt.Errorf("decode record: type is %d", uint32(r.kind))
	}
	if r.offset < int64(segmentHeader) {
		return record{}, fmt.Errorf("decode record: offset is %d", r.offset)
	}
	return r, nil
}

func appendSegmentHeader(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, segmentMagic...), version)
}

// checkSegmentHeader checks the header that b begins with.
func checkSegmentHeader(b []byte) error {
	if len(b) < segmentHeader || !bytes.Equal(b[:len(segmentMagic)], []byte(segmentMagic)) {
		return fmt.Errorf("check segment header: %w", ErrAltered)
	}
	if v := binary.BigEndian.Uint32(b[len(segmentMagic):]); v != version {
		return fmt.Errorf("check segment header: %w: %d, this program knows %d", ErrVersion, v, version)
	}
	return nil
}
