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
	"sync"
	"testing"
	"time"

	"github.com/stopd/stopd"
)

// A rawRecord is a record as docs/store.md says where its parts are.
type rawRecord struct {
	kind          uint32
	number, batch uint64
	b             []byte
}

// rawRecords reads the first segment of a store, by the numbers of that page alone.
func rawRecords(t *testing.T, dir string) (all []rawRecord) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "0000000000000001.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for b = b[44:]; len(b) > 0; {
		n := 72 + int(binary.BigEndian.Uint32(b[4:]))
		all = append(all, rawRecord{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[60:]), b[:n:n]})
		b = b[n:]
	}
	return all
}

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
	keys := map[uint64][]byte{}
	opened := 0
	for _, r := range rawRecords(t, dir) {
		switch r.kind {
		case 1:
			sealed := filepath.Join(t.TempDir(), "batch.age")
			if err := os.WriteFile(sealed, r.b[72+32:], 0o600); err != nil {
				t.Fatal(err)
			}
			if keys[r.number], err = exec.Command(program, "-d", "-i", identity, sealed).Output(); err != nil || len(keys[r.number]) != 32 {
				t.Fatalf("a key of %d octets, %v", len(keys[r.number]), err)
			}
		case 2:
			key, err := hkdf.Key(sha256.New, keys[r.batch], nil, string(binary.BigEndian.AppendUint64([]byte("stopd store v2 record\x00"), r.number)), 32)
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
			if _, err := gcm.Open(nil, make([]byte, 12), r.b[72:], r.b[:68]); err != nil {
				t.Errorf("report of record %d: %v", r.number, err)
			}
			opened++
		}
	}
	if opened != 2 {
		t.Errorf("%d reports opened", opened)
	}
}

// Whoever takes the memory of a running daemon has the key of no more than a second's records, nor of more than 256.
func TestBatchBounds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openAt(t, dir, Config{}, newIdentity(t))
	var keeping sync.WaitGroup
	for range 600 {
		keeping.Go(func() {
			if _, err := s.Keep(t.Context(), []byte("a report"), stop.Payer{}); err != nil {
				t.Error(err)
			}
		})
	}
	keeping.Wait()
	sealed := map[uint64]int{}
	for _, r := range rawRecords(t, dir) {
		if sealed[r.batch]++; r.batch != 0 && sealed[r.batch] > 256 {
			t.Fatalf("batch %d has %d records", r.batch, sealed[r.batch])
		}
	}
	began := time.Unix(1e9, 0)
	for _, c := range []struct {
		records int
		passed  time.Duration
		over    bool
	}{{0, 0, false}, {255, time.Second - 1, false}, {256, 0, true}, {0, time.Second, true}, {0, -1, true}} {
		b := batch{opened: began, records: c.records}
		if over := b.over(began.Add(c.passed)); over != c.over {
			t.Errorf("%d records after %s: over is %t", c.records, c.passed, over)
		}
	}
}
