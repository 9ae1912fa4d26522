package evidence

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
	"time"

	"filippo.io/age"
)

// A batch is the records that share one key. It holds at most batchRecords and lasts at most batchTime, so
// that who takes the memory of a running daemon has the key of no more.
const (
	batchRecords = 256
	batchTime    = time.Second
	batchKey     = 32
	sealOverhead = 16 // the tag of AES-GCM
)

// recordKeyLabel is the context of HKDF, before the record's number.
const recordKeyLabel = "stopd store v2 record\x00"

// A batch that is open. Its key is in page, and nowhere else that lasts.
type batch struct {
	number  uint64 // of its record
	page    []byte
	locked  bool // in memory
	opened  time.Time
	records int
}

// newBatch makes a key and gives the payload of the batch's record: the dictionary's hash, and the key as an
// age file to all recipients.
func newBatch(number uint64, now time.Time, recipients []age.Recipient) (b *batch, payload []byte, err error) {
	page, locked, err := newPage()
	if err != nil {
		return nil, nil, fmt.Errorf("open batch: %w", err)
	}
	b = &batch{number: number, page: page, locked: locked, opened: now}
	var wrapped bytes.Buffer
	wrapped.Grow(4096)
	sum := dictionarySum()
	wrapped.Write(sum[:])
	secretly(func() {
		rand.Read(b.key()) // never fails
		err = wrap(&wrapped, recipients, b.key())
	})
	if err == nil && wrapped.Len() > maxPayload {
		err = fmt.Errorf("%d bytes exceed %d", wrapped.Len(), maxPayload)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open batch: %w", err), b.close())
	}
	return b, wrapped.Bytes(), nil
}

func (b *batch) key() []byte { return b.page[:batchKey:batchKey] }

// over tells whether the batch takes no more records.
func (b *batch) over(now time.Time) bool {
	return b.records >= batchRecords || now.Sub(b.opened) >= batchTime || now.Before(b.opened)
}

// close erases the key. What was derived from it is erased by [sweep].
func (b *batch) close() error {
	clear(b.page)
	err := freePage(b.page)
	b.page = nil
	if err != nil {
		return fmt.Errorf("close batch: %w", err)
	}
	return nil
}

// wrap writes a key as a standard age file to all recipients.
func wrap(w io.Writer, recipients []age.Recipient, key []byte) error {
	a, err := age.Encrypt(w, recipients...)
	if err != nil {
		return fmt.Errorf("wrap key: %w", err)
	}
	if _, err := a.Write(key); err != nil {
		return fmt.Errorf("wrap key: %w", err)
	}
	if err := a.Close(); err != nil {
		return fmt.Errorf("wrap key: %w", err)
	}
	return nil
}

// unwrap gives the key in the payload of a batch's record.
func unwrap(payload []byte, ids []age.Identity) ([]byte, error) {
	if len(payload) < sha256.Size {
		return nil, fmt.Errorf("unwrap key: %w", ErrAltered)
	}
	r, err := age.Decrypt(bytes.NewReader(payload[sha256.Size:]), ids...)
	if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) {
		return nil, fmt.Errorf("unwrap key: %w", ErrWrongKey)
	}
	if err != nil {
		return nil, fmt.Errorf("unwrap key: %w: %w", ErrAltered, err)
	}
	key, err := io.ReadAll(io.LimitReader(r, batchKey+1))
	if err != nil || len(key) != batchKey {
		return nil, fmt.Errorf("unwrap key: %w: %d bytes, %v", ErrAltered, len(key), err)
	}
	if [sha256.Size]byte(payload) != dictionarySum() {
		return nil, fmt.Errorf("unwrap key: %w: its records are compressed with another dictionary", ErrVersion)
	}
	return key, nil
}

// recordKey derives the key of one record from that of its batch: HKDF-SHA256 (RFC 5869) without salt.
func recordKey(key []byte, number uint64) ([KeySize]byte, error) {
	info := binary.BigEndian.AppendUint64([]byte(recordKeyLabel), number)
	k, err := hkdf.Key(sha256.New, key, nil, string(info), KeySize)
	if err != nil {
		return [KeySize]byte{}, err
	}
	return [KeySize]byte(k), nil
}

// recordCipher is the one-time cipher of a record: AES-256-GCM.
func recordCipher(key [KeySize]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// KeySize is the length of the key of one record, in octets.
const KeySize = 32

// zeroNonce is the nonce of every record: its key seals nothing else.
var zeroNonce [12]byte

// sealRecord appends the record r with plaintext as its payload, sealed with the key of a batch. The number of
// a record may never be sealed with one key twice.
func sealRecord(b []byte, r record, key, plaintext []byte) ([]byte, error) {
	start := len(b)
	b = append(appendHeader(b, r, len(plaintext)+sealOverhead), 0, 0, 0, 0)
	b = append(b, make([]byte, len(plaintext)+sealOverhead)...)
	head, payload := b[start:start+sumAt], b[start+recordHeader:]
	var err error
	secretly(func() {
		var k [KeySize]byte
		if k, err = recordKey(key, r.number); err != nil {
			return
		}
		var c cipher.AEAD
		if c, err = recordCipher(k); err == nil {
			c.Seal(payload[:0], zeroNonce[:], plaintext, head)
		}
	})
	if err != nil {
		return b[:start], fmt.Errorf("seal record: %w", err)
	}
	finishRecord(b[start:])
	return b, nil
}

// openRecord gives the content of a sealed record.
func openRecord(r record, key [KeySize]byte) ([]byte, error) {
	c, err := recordCipher(key)
	if err != nil {
		return nil, fmt.Errorf("open record: %w", err)
	}
	plaintext, err := c.Open(nil, zeroNonce[:], r.payload, r.header())
	if err != nil {
		return nil, fmt.Errorf("open record: %w: %w", ErrAltered, err)
	}
	return unpack(plaintext)
}
