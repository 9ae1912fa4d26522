package recorder

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// A Seal is what a history is kept under.
type Seal struct {
	// Key has KeySize octets.
	Key []byte
	// Scope is where the history holds: its numbers of processes, namespaces and sockets mean something else anywhere else.
	Scope string
}

// KeySize is the length of a seal's key, in octets.
const KeySize = 32

// The sealed form: a header, and pieces, each behind its length in 4 octets. A piece is compressed and then sealed as a record of the store is:
// AES-256-GCM, with a nonce of zeros, and a key of its own (HKDF-SHA256 of the seal's, with the header's salt and the piece's number). What is
// authenticated besides are the header and the number. So no piece can be changed, left out, or put in another's place.
//
//	0   11  magic
//	11   1  version
//	12  32  SHA-256 of the scope
//	44  32  salt, random
//	76   4  how many pieces follow
const (
	sealMagic   = "stopd past\n"
	sealVersion = 1
	headerSize  = 80
	tagSize     = 16
	maxSealed   = maxPiece + maxPiece/128 + 1024 + tagSize // what does not compress takes a bit more
)

// pieceLabel is the context of HKDF, before the piece's number.
const pieceLabel = "stopd past v1 piece\x00"

// Errors of [History.Restore] for what cannot be used.
var (
	ErrVersion = errors.New("another version")
	ErrScope   = errors.New("of another boot, or of other namespaces")
	ErrAltered = errors.New("altered, cut, or sealed with another key")
)

func (s Seal) header(pieces int) []byte {
	b := append([]byte(sealMagic), sealVersion)
	scope := sha256.Sum256([]byte(s.Scope))
	b = append(b, scope[:]...)
	b = append(b, make([]byte, 32)...)
	rand.Read(b[44:]) // never fails
	return append32(b, uint32(pieces))
}

// piece returns the cipher of a piece, which seals nothing else, and what is authenticated with it.
func (s Seal) piece(header []byte, n int) (c cipher.AEAD, with []byte, err error) {
	number := append32(nil, uint32(n))
	key, err := hkdf.Key(sha256.New, s.Key, header[44:76], pieceLabel+string(number), KeySize)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	c, err = cipher.NewGCM(block)
	return c, append(header[:headerSize:headerSize], number...), err
}

var zeroNonce [12]byte

// Keep writes a history, in which all is that happened until a time, sealed. Events may be applied meanwhile.
func (h *History) Keep(w io.Writer, s Seal, at uint64) error {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("keep history: %w", err)
	}
	defer z.Close()
	connections, processes := h.pieces()
	header := s.header(connections + processes + 1)
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("keep history: %w", err)
	}
	var plain, packed, sealed []byte
	for n := range connections + processes + 1 {
		switch {
		case n < connections:
			plain = h.appendConnections(plain[:0], n)
		case n < connections+processes:
			plain = h.appendProcesses(plain[:0], n-connections)
		default: // last: what gave way meanwhile is forgotten
			plain = appendSummary(plain[:0], h.summary(at))
		}
		c, with, err := s.piece(header, n)
		if err != nil {
			return fmt.Errorf("keep history: %w", err)
		}
		packed = z.EncodeAll(plain, packed[:0])
		sealed = append32(sealed[:0], uint32(len(packed)+tagSize))
		if _, err := w.Write(c.Seal(sealed, zeroNonce[:], packed, with)); err != nil {
			return fmt.Errorf("keep history: %w", err)
		}
	}
	return nil
}

// Restore fills a history, which has to be new, with what [History.Keep] wrote. Nothing was remembered from then until now. On an error the
// history is as it was; the error is [ErrVersion], [ErrScope], [ErrAltered], or that of the reader.
func (h *History) Restore(r io.Reader, s Seal, now uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &filling{h: h}
	begun := h.losses.begun
	if err := f.read(r, s); err != nil {
		h.make(h.room(), begun)
		return fmt.Errorf("restore history: %w", err)
	}
	f.done(now)
	return nil
}

func (f *filling) read(r io.Reader, s Seal) error {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return cut(err)
	}
	scope := sha256.Sum256([]byte(s.Scope))
	switch {
	case string(header[:len(sealMagic)]) != sealMagic:
		return ErrAltered
	case header[len(sealMagic)] != sealVersion:
		return ErrVersion
	case !bytes.Equal(header[12:44], scope[:]):
		return ErrScope
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPiece), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	pieces := int(binary.BigEndian.Uint32(header[76:]))
	if pieces == 0 { // nothing would say that the header is ours
		return ErrAltered
	}
	var sealed, plain []byte
	for n := range pieces {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return cut(err)
		}
		length := binary.BigEndian.Uint32(size[:])
		if length > maxSealed {
			return ErrAltered
		}
		sealed = append(sealed[:0], make([]byte, length)...)
		if _, err := io.ReadFull(r, sealed); err != nil {
			return cut(err)
		}
		c, with, err := s.piece(header, n)
		if err != nil {
			return err
		}
		packed, err := c.Open(sealed[:0], zeroNonce[:], sealed, with)
		if err != nil {
			return ErrAltered
		}
		if plain, err = z.DecodeAll(packed, plain[:0]); err != nil {
			return fmt.Errorf("%w: %w", ErrAltered, err)
		}
		if err := f.piece(plain); err != nil {
			return fmt.Errorf("%w: %w", ErrAltered, err)
		}
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != io.EOF {
		return cut(err)
	}
	return nil
}

// cut is the error where something ends too early, or too late.
func cut(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrAltered
	}
	return err
}

// piece enters a piece.
func (f *filling) piece(b []byte) (err error) {
	if len(b) == 0 {
		return errKept
	}
	switch b[0] {
	case keptConnections:
		return parseConnections(b, f.connection)
	case keptProcesses:
		return parseProcesses(b, f.process)
	}
	f.sum, err = parseSummary(b)
	return err
}
