package evidence

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The age program opens a batch's key, as docs/store.md says, and with that key each record of the batch opens.
func TestAgeProgram(t *testing.T) {
	program, err := exec.LookPath("age")
	if err != nil {
		t.Skip(err)
	}
	id := newIdentity(t)
	dir := filepath.Join(t.TempDir(), "store")
	s := openAt(t, dir, Config{}, newIdentity(t), id)
	keep(t, s, "a report")
	keep(t, s, "another")
	closeStore(t, s)
	identity := filepath.Join(t.TempDir(), "admin.key")
	if err := os.WriteFile(identity, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "0000000000000001.seg"))
	if err != nil {
		t.Fatal(err)
	}
	// By the numbers of docs/store.md alone.
	keys := map[uint64][]byte{}
	opened := 0
	for b = b[44:]; len(b) > 0; {
		n := 72 + int(binary.BigEndian.Uint32(b[4:]))
		number, batch := binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[60:])
		switch kind := binary.BigEndian.Uint32(b[8:]); kind {
		case 1:
			sealed := filepath.Join(t.TempDir(), "batch.age")
			if err := os.WriteFile(sealed, b[72+32:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if keys[number], err = exec.Command(program, "-d", "-i", identity, sealed).Output(); err != nil || len(keys[number]) != 32 {
				t.Fatalf("a key of %d octets, %v", len(keys[number]), err)
			}
		case 2:
			key, err := hkdf.Key(sha256.New, keys[batch], nil, string(binary.BigEndian.AppendUint64([]byte("stopd store v2 record\x00"), number)), 32)
			if err != nil {
				t.Fatal(err)
			}
			block, err := aes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := gcm.Open(nil, make([]byte, 12), b[72:n], b[:68]); err != nil {
				t.Errorf("report of record %d: %v", number, err)
			}
			opened++
		}
		b = b[n:]
	}
	if opened != 2 {
		t.Errorf("%d reports opened", opened)
	}
}
