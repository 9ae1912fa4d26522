package evidence

import (
	"fmt"

	"filippo.io/age"
)

// Unseal opens an export. That the token is the hash of the report's bytes, that every record
// is of that token, and that they are all that its last redemption let out, is checked: what does not hold
// is [ErrAltered]. Where no identity opens a record the error is [ErrWrongKey]; an export of another version is
// [ErrVersion].
func Unseal(export []byte, ids ...age.Identity) (Evidence, error) {
	ds, err := Disclose(export, ids...)
	if err != nil {
		return Evidence{}, err
	}
	a, err := Assemble(ds)
	if err != nil {
		return Evidence{}, fmt.Errorf("unseal export: %w", err)
	}
	return a.Evidence, nil
}

// keys are those of batches, each unwrapped when it is first needed.
type keys struct {
	ids     []age.Identity
	wrapped map[uint64][]byte
	opened  map[uint64][]byte
}

func newKeys(ids []age.Identity) *keys {
	return &keys{ids: ids, wrapped: map[uint64][]byte{}, opened: map[uint64][]byte{}}
}

// add remembers a batch's record. Its payload is kept.
func (k *keys) add(r record) { k.wrapped[r.number] = r.payload }

// of gives the key of a sealed record.
func (k *keys) of(r record) ([KeySize]byte, error) {
	key, ok := k.opened[r.batch]
	if !ok {
		payload, ok := k.wrapped[r.batch]
		if !ok {
			return [KeySize]byte{}, fmt.Errorf("open record: %w: its batch %d is missing", ErrAltered, r.batch)
		}
		var err error
		if key, err = unwrap(payload, k.ids); err != nil {
			return [KeySize]byte{}, err
		}
		k.opened[r.batch] = key
	}
	return recordKey(key, r.number)
}

// open gives the content of a sealed record.
func (k *keys) open(r record) ([]byte, error) {
	key, err := k.of(r)
	if err != nil {
		return nil, err
	}
	return openRecord(r, key)
}
