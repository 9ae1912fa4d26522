package evidence

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sort"
)

// A table finds the records of a closed segment: by their locators, and batches by their numbers. It holds
// nothing that the segment does not. All integers are big-endian:
//
//	 0 12  "stopd table" and a line feed
//	12  4  version
//	16  8  number of the segment
//	24  8  number of its first record
//	32  8  number behind its last record
//	40  8  size of the segment, bytes
//	48  8  time of the last record, Unix nanoseconds, signed
//	56  4  number n of located records (those of tokens)
//	60  4  number m of batches
//	64  4  CRC-32C of bytes 0 to 63
//	68  4  CRC-32C of what follows
//	72     n times a locator (32) and an offset in the segment (8), in the order of these 40 bytes
//	       m times a record number (8) and an offset (8), in order
//	       a CRC-32C (4) for every 128 located records, and one for the rest
const (
	tableMagic = "stopd table\n"
	// tableVersion is of the table alone, which is made anew where it is of another: the store's stays.
	tableVersion = 3
	tableHeader  = 72
	placeSize    = 40
	batchSize    = 16
	blockPlaces  = 128
)

// errOldTable says that a table is of the version before, which finds reports and trace-backs alone.
var errOldTable = fmt.Errorf("%w: 2, of a table", ErrVersion)

// A place is where a located record is.
type place struct {
	locator locator
	offset  int64
}

// A batchPlace is where a batch's record is.
type batchPlace struct {
	number uint64
	offset int64
}

// A contents is what a table tells of its segment.
type contents struct {
	segment uint64
	first   uint64
	next    uint64 // number behind the last record
	size    int64
	last    int64 // time of the last record
	places  int
	batches int
	sum     uint32 // CRC-32C of the entries
}

// appendTable appends the table of a segment. Of c it takes what is not counted.
func appendTable(b []byte, c contents, places []place, batches []batchPlace) []byte {
	slices.SortFunc(places, func(x, y place) int {
		return cmp.Or(bytes.Compare(x.locator[:], y.locator[:]), cmp.Compare(x.offset, y.offset))
	})
	slices.SortFunc(batches, func(x, y batchPlace) int { return cmp.Compare(x.number, y.number) })
	entries := make([]byte, 0, placeSize*len(places)+batchSize*len(batches))
	for _, p := range places {
		entries = binary.BigEndian.AppendUint64(append(entries, p.locator[:]...), uint64(p.offset))
	}
	located := entries
	for _, p := range batches {
		entries = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(entries, p.number), uint64(p.offset))
	}
	for block := range slices.Chunk(located, placeSize*blockPlaces) {
		entries = binary.BigEndian.AppendUint32(entries, crc32.Checksum(block, castagnoli))
	}
	start := len(b)
	b = binary.BigEndian.AppendUint32(append(b, tableMagic...), tableVersion)
	for _, v := range []uint64{c.segment, c.first, c.next, uint64(c.size), uint64(c.last)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(places)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(batches)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(entries, castagnoli))
	return append(b, entries...)
}

// decodeTableHeader decodes the header of a table of size bytes.
func decodeTableHeader(b []byte, size int64) (contents, error) {
	err := checkVersion(b, tableMagic, tableVersion)
	if checkVersion(b, tableMagic, 2) == nil {
		return contents{}, fmt.Errorf("decode table: %w", errOldTable)
	}
	if err != nil {
		return contents{}, fmt.Errorf("decode table: %w", err)
	}
	if len(b) < tableHeader || crc32.Checksum(b[:64], castagnoli) != binary.BigEndian.Uint32(b[64:]) {
		return contents{}, fmt.Errorf("decode table: %w", ErrAltered)
	}
	c := contents{
		segment: binary.BigEndian.Uint64(b[16:]),
		first:   binary.BigEndian.Uint64(b[24:]),
		next:    binary.BigEndian.Uint64(b[32:]),
		size:    int64(binary.BigEndian.Uint64(b[40:])),
		last:    int64(binary.BigEndian.Uint64(b[48:])),
		places:  int(binary.BigEndian.Uint32(b[56:])),
		batches: int(binary.BigEndian.Uint32(b[60:])),
		sum:     binary.BigEndian.Uint32(b[68:]),
	}
	if c.bytes() != size || c.next < c.first {
		return contents{}, fmt.Errorf("decode table: %w: %d bytes, not %d", ErrAltered, size, c.bytes())
	}
	return c, nil
}

// bytes is the size of the table itself.
func (c contents) bytes() int64 {
	return tableHeader + placeSize*int64(c.places) + batchSize*int64(c.batches) + 4*int64(c.blocks())
}

// find gives the offsets of the records with a locator, in order. It reads a few blocks, not the whole table:
// locators are hashes, so where one is follows from what it is, nearly.
func (c contents) find(r io.ReaderAt, want locator) ([]int64, error) {
	low, high := 0, c.blocks()-1
	at := min(int(float64(binary.BigEndian.Uint64(want[:]))/(1<<64)*float64(c.places))/blockPlaces, high)
	for tries := 0; low <= high; tries++ {
		if at < low || at > high || tries > 3 {
			at = (low + high) / 2
		}
		block, err := c.block(r, at)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes.Compare(want[:], block[0].locator[:]) < 0:
			high, at = at-1, at-1
		case bytes.Compare(want[:], block[len(block)-1].locator[:]) > 0:
			low, at = at+1, at+1
		default:
			return c.collect(r, want, at, block)
		}
	}
	return nil, nil
}

// collect gives the offsets in a block that may have a locator, and in those around it.
func (c contents) collect(r io.ReaderAt, want locator, at int, block []place) (offsets []int64, err error) {
	for at > 0 && block[0].locator == want {
		at--
		if block, err = c.block(r, at); err != nil {
			return nil, err
		}
	}
	for {
		for _, p := range block {
			if p.locator == want {
				offsets = append(offsets, p.offset)
			}
		}
		if at++; at >= c.blocks() || bytes.Compare(block[len(block)-1].locator[:], want[:]) > 0 {
			return offsets, nil
		}
		if block, err = c.block(r, at); err != nil {
			return nil, err
		}
	}
}

// blocks is how many blocks of places there are.
func (c contents) blocks() int { return (c.places + blockPlaces - 1) / blockPlaces }

// block reads a block of places and checks its checksum.
func (c contents) block(r io.ReaderAt, i int) ([]place, error) {
	n := min(blockPlaces, c.places-i*blockPlaces)
	b, sum := make([]byte, placeSize*n), make([]byte, 4)
	if _, err := r.ReadAt(b, tableHeader+placeSize*blockPlaces*int64(i)); err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	if _, err := r.ReadAt(sum, c.bytes()-4*int64(c.blocks()-i)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read table: %w", err)
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, fmt.Errorf("read table: %w", ErrAltered)
	}
	places := make([]place, n)
	for j := range places {
		e := b[placeSize*j:]
		places[j] = place{locator(e), int64(binary.BigEndian.Uint64(e[32:]))}
	}
	return places, nil
}

// batch gives the offset of a batch's record.
func (c contents) batch(r io.ReaderAt, number uint64) (int64, bool, error) {
	var failed error
	var b [batchSize]byte
	read := func(i int) uint64 {
		_, err := r.ReadAt(b[:], tableHeader+placeSize*int64(c.places)+batchSize*int64(i))
		if err != nil && failed == nil {
			failed = fmt.Errorf("read table: %w", err)
		}
		return binary.BigEndian.Uint64(b[:])
	}
	i := sort.Search(c.batches, func(i int) bool { return read(i) >= number })
	if failed != nil || i == c.batches || read(i) != number {
		return 0, false, failed
	}
	return int64(binary.BigEndian.Uint64(b[8:])), true, failed
}
