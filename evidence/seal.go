package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// seal gives plaintext as a standard age file to all recipients.
func seal(recipients []age.Recipient, plaintext ...[]byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, recipients...)
	if err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	for _, p := range plaintext {
		if _, err := w.Write(p); err != nil {
			return nil, fmt.Errorf("seal record: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal record: %w", err)
	}
	if b.Len() > maxPayload {
		return nil, fmt.Errorf("seal record: %d bytes exceed %d", b.Len(), maxPayload)
	}
	return b.Bytes(), nil
}

// open gives the plaintext of a sealed payload.
func open(payload []byte, ids []age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(payload), ids...)
	if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) {
		return nil, fmt.Errorf("open record: %w", ErrWrongKey)
	}
	if err != nil {
		return nil, fmt.Errorf("open record: %w: %w", ErrAltered, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open record: %w: %w", ErrAltered, err)
	}
	return b, nil
}
