package evidence

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// What is sealed is compressed first: reports resemble each other, and a dictionary holds what they share. It is
// no trained one but the samples themselves, one behind the other, the commonest last ("make dictionary"): that
// takes a third less room, since most of a report is names of keys and not statistics.
//
//go:embed dictionary.bin
var dictionary []byte

var dictionarySum = sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(dictionary) })

// steps of sizes to which plaintexts are padded: a decoy, an ID answer and a small report have one size,
// and so have trace-backs with nothing in them and such with a few hosts.
const (
	step          = 512
	tracebackStep = 1024
)

var packer = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderDictRaw(0, dictionary), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<17), zstd.WithLowerEncoderMem(true))
})

var unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderDictRaw(0, dictionary), zstd.WithDecoderMaxMemory(maxPlaintext),
		zstd.WithDecoderConcurrency(1))
})

// maxPlaintext bounds what a sealed payload can expand to.
const maxPlaintext = 32 << 20

// A skippable frame (RFC 8878 section 3.1.2) is the padding, so that the whole is what zstd decodes.
const (
	skippable       = 0x184D2A50
	skippableHeader = 8
)

// pack compresses content and pads it to a step of at least least bytes.
func pack(content []byte, least int) ([]byte, error) {
	z, err := packer()
	if err != nil {
		return nil, fmt.Errorf("compress record: %w", err)
	}
	b := z.EncodeAll(content, make([]byte, 0, max(least, len(content)/2)))
	padded := stepOf(len(b)+skippableHeader, least)
	if padded+sealOverhead > maxPayload {
		return nil, fmt.Errorf("compress record: %d bytes exceed %d", padded, maxPayload)
	}
	b = binary.LittleEndian.AppendUint32(b, skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(padded-len(b)-4))
	return append(b, make([]byte, padded-len(b))...), nil
}

// stepOf rounds a size up: to least, then by eighths of the next power of two.
func stepOf(n, least int) int {
	if n <= least {
		return least
	}
	unit := 1 << max(bits.Len(uint(n-1))-3, 0)
	return (n + unit - 1) / unit * unit
}

// unpack gives the content of what pack made.
func unpack(b []byte) ([]byte, error) {
	z, err := unpacker()
	if err != nil {
		return nil, fmt.Errorf("decompress record: %w", err)
	}
	content, err := z.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress record: %w: %w", ErrAltered, err)
	}
	return content, nil
}
