package translog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// LeafSize is the length of a leaf, in octets.
const LeafSize = 8 + 32 + 32

// A Leaf is what the log keeps of one record. It says nothing to who does not know the record's token, and
// stays when the record has expired.
type Leaf struct {
	Time    time.Time // when the record was written, to the nanosecond, 1678 to 2262
	Locator [32]byte  // hash of the record's locator
	Content [32]byte  // hash of the record as it is stored
}

// Append appends the leaf's 72 octets: Unix nanoseconds (8, big-endian, signed), locator, content.
func (l Leaf) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(l.Time.UnixNano()))
	b = append(b, l.Locator[:]...)
	return append(b, l.Content[:]...)
}

// ParseLeaf is the inverse of [Leaf.Append].
func ParseLeaf(b []byte) (Leaf, error) {
	if len(b) != LeafSize {
		return Leaf{}, fmt.Errorf("parse leaf: %d octets, not %d", len(b), LeafSize)
	}
	return Leaf{
		Time:    time.Unix(0, int64(binary.BigEndian.Uint64(b))).UTC(),
		Locator: [32]byte(b[8:40]),
		Content: [32]byte(b[40:72]),
	}, nil
}

// bundled is the length of a leaf in an entry bundle: two octets of length before it.
const bundled = 2 + LeafSize

// parseBundle splits an entry bundle (c2sp.org/tlog-tiles) of n leaves.
func parseBundle(b []byte, n int) ([]Leaf, error) {
	leaves := make([]Leaf, 0, n)
	for len(b) > 0 {
		entry, rest, err := torchwood.ReadTileEntry(b)
		if err != nil {
			return nil, fmt.Errorf("parse entry bundle: %w", err)
		}
		l, err := ParseLeaf(entry)
		if err != nil {
			return nil, fmt.Errorf("parse entry bundle: %w", err)
		}
		leaves = append(leaves, l)
		b = rest
	}
	if len(leaves) != n {
		return nil, errors.New("parse entry bundle: wrong number of entries")
	}
	return leaves, nil
}

// hashesOf is the tile of level 0 of a bundle that [parseBundle] takes.
func hashesOf(bundle []byte) []byte {
	var hashes []byte
	for entry := range slices.Chunk(bundle, bundled) {
		h := tlog.RecordHash(entry[2:])
		hashes = append(hashes, h[:]...)
	}
	return hashes
}
