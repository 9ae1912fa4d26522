package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/stopd/stopd"
)

// The header of a record, all integers big-endian:
//
//	 0  4  magic "srec"
//	 4  4  length of the payload
//	 8  4  type
//	12  8  number: how many records the store had before it
//	20  8  time, Unix nanoseconds, signed
//	28 32  locator
//	60  8  number of the batch whose key seals the payload; 0 if it is not sealed
//	68  4  CRC-32C of bytes 0 to 67 and the payload
//
// The number tells a reader that records were removed or moved; the magic lets it find the next
// whole record behind a damaged one. Bytes 0 to 67 are authenticated with what they head.
const (
	recordMagic  = "srec"
	recordHeader = 72
	sumAt        = 68
	// maxPayload bounds the memory that a length read from disk can claim.
	maxPayload = 16 << 20
)

type recordType uint32

const (
	typeBatch      recordType = 1
	typeReport     recordType = 2
	typeTraceback  recordType = 3
	typeRedemption recordType = 4
	typeStart      recordType = 5
	typeState      recordType = 6
	typeExpiry     recordType = 7
	typeHold       recordType = 8
	typeRelease    recordType = 9
	typeConfig     recordType = 10
	typeProof      recordType = 11 // in exports alone: see appendExport
)

var typeNames = map[recordType]string{
	typeBatch:      "batch",
	typeReport:     "report",
	typeTraceback:  "traceback",
	typeRedemption: "redemption",
	typeStart:      "start",
	typeState:      "state",
	typeExpiry:     "expiry",
	typeHold:       "hold",
	typeRelease:    "release",
	typeConfig:     "config",
	typeProof:      "proof",
}

func (t recordType) String() string { return typeNames[t] }

// sealed tells whether records of the type are sealed with a batch's key.
func (t recordType) sealed() bool {
	switch t {
	case typeReport, typeTraceback, typeRedemption, typeHold, typeRelease:
		return true
	}
	return false
}

// located tells whether records of the type are found by their locator: those that are of one token.
func (t recordType) located() bool { return t.sealed() }

// A locator finds the records of a token for who knows the token. It says nothing to anyone else.
type locator [sha256.Size]byte

// Every use of SHA-256 has a label, so that nothing on disk links a report to its trace-backs, and no hash
// stands for two things.
const (
	reportLabel    = "stopd store v2 report\x00"
	tracebackLabel = "stopd store v2 traceback\x00"
	typeLabel      = "stopd store v2 type\x00"
	leafLabel      = "stopd store v2 leaf\x00"
	contentLabel   = "stopd store v2 content\x00"
)

func locate(label string, t stop.Token) locator {
	return sha256.Sum256(append([]byte(label), t[:]...))
}

// locatorOf is the locator of a token's records of the type.
func (t recordType) locatorOf(token stop.Token) locator {
	if t == typeTraceback {
		return locate(tracebackLabel, token)
	}
	return locate(reportLabel, token)
}

// typeLocator is the locator of records that belong to no token. It makes their type a part of the leaf.
func typeLocator(t recordType) locator {
	return sha256.Sum256([]byte(typeLabel + t.String()))
}

type record struct {
	kind    recordType
	number  uint64
	time    int64 // Unix nanoseconds
	locator locator
	batch   uint64
	payload []byte
}

func (r record) size() int64 { return recordHeader + int64(len(r.payload)) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends the header of r without its checksum, which [finishRecord] sets: a payload that is
// sealed behind it is authenticated with these bytes.
func appendHeader(b []byte, r record, payload int) []byte {
	b = append(b, recordMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(payload))
	b = binary.BigEndian.AppendUint32(b, uint32(r.kind))
	b = binary.BigEndian.AppendUint64(b, r.number)
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	b = append(b, r.locator[:]...)
	return binary.BigEndian.AppendUint64(b, r.batch)
}

// finishRecord sets the checksum of the whole record that b is.
func finishRecord(b []byte) {
	sum := crc32.Update(crc32.Checksum(b[:sumAt], castagnoli), castagnoli, b[recordHeader:])
	binary.BigEndian.PutUint32(b[sumAt:], sum)
}

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = append(appendHeader(b, r, len(r.payload)), 0, 0, 0, 0)
	b = append(b, r.payload...)
	finishRecord(b[start:])
	return b
}

// header gives the bytes of r's header that are authenticated with its payload.
func (r record) header() []byte { return appendHeader(nil, r, len(r.payload)) }

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
		number:  binary.BigEndian.Uint64(b[12:]),
		time:    int64(binary.BigEndian.Uint64(b[20:])),
		locator: locator(b[28:60]),
		batch:   binary.BigEndian.Uint64(b[60:]),
		payload: payload,
	}
	if _, known := typeNames[r.kind]; !known {
		return record{}, fmt.Errorf("decode record: type is %d", uint32(r.kind))
	}
	if r.kind.sealed() != (r.batch != 0) || r.batch != 0 && r.batch >= r.number {
		return record{}, fmt.Errorf("decode record: a %s of batch %d", r.kind, r.batch)
	}
	return r, nil
}
