package evidence

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Secrets are kept masked, so that the scan does not find what it looks for in its own hands.
const mask = 0x5a

func masked(b []byte) []byte {
	m := make([]byte, len(b))
	for i := range b {
		m[i] = b[i] ^ mask
	}
	return m
}

// scan looks for secrets in all memory of this process that can be written, and counts where they are.
func scan(secrets map[string][]byte) (map[string]int, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	const overlap = 64
	buffer := make([]byte, 1<<20)
	defer clear(buffer)
	masks := bytes.Repeat([]byte{mask}, len(buffer))
	count := map[string]int{}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(mode, "rw") || strings.HasSuffix(lines.Text(), "[vvar]") {
			continue
		}
		for at := from; at < to; at += uint64(len(buffer) - overlap) {
			n, err := mem.ReadAt(buffer[:min(uint64(len(buffer)), to-at)], int64(at))
			if err != nil && n == 0 {
				break // not readable, such as a device's memory
			}
			subtle.XORBytes(buffer[:n], buffer[:n], masks) // and the copy is masked, too
			for name, secret := range secrets {
				count[name] += bytes.Count(buffer[:n], secret)
			}
		}
	}
	return count, nil
}

// Once a batch has closed, its key is nowhere in the memory of this process, nor is what is derived from it. That the scan
// finds a key is shown while the batch is open.
func TestKeysAreErased(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	secrets := map[string][]byte{}
	derive := func() {
		key := s.batch.key()
		secrets["batch key"] = masked(key)
		extracted, err := hkdf.Extract(sha256.New, key, nil)
		if err != nil {
			t.Error(err)
		}
		secrets["extracted key"] = masked(extracted)
		for n := s.batch.number; n < s.open.next; n++ {
			info := binary.BigEndian.AppendUint64([]byte(recordKeyLabel), n)
			k, err := hkdf.Key(sha256.New, key, nil, string(info), 32)
			if err != nil {
				t.Error(err)
			}
			secrets[fmt.Sprintf("key of record %d", n)] = masked(k)
		}
	}
	var while map[string]int // what is found while the batch is open
	var err error
	for len(secrets) == 0 {
		for i := range 20 {
			keep(t, s, fmt.Sprintf("report %d", i))
		}
		s.inBetween(t.Context(), func() { // no batch closes meanwhile
			if s.batch != nil { // else its second has passed
				secretly(derive)
				while, err = scan(map[string][]byte{"batch key": secrets["batch key"]})
			}
		})
	}
	if err != nil || while["batch key"] == 0 {
		t.Fatalf("the scan does not find the key of the open batch: %v", err)
	}
	waitClosed(t, s)
	sweep() // of what this test derived itself
	left, err := scan(secrets)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, n := range left {
		if total += n; n > 0 {
			t.Logf("%s: %d times", name, n)
		}
	}
	if erases && total > 0 {
		t.Errorf("%d copies of keys are left", total)
	}
	if !erases {
		t.Logf("built without GOEXPERIMENT=runtimesecret: %d copies are left until their memory is used again", total)
	}
}

// waitClosed waits until the open batch is closed.
func waitClosed(t *testing.T, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		closed := false
		s.inBetween(t.Context(), func() { closed = s.batch == nil })
		if closed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the batch is still open")
		}
		tick := time.NewTimer(10 * time.Millisecond)
		<-tick.C
	}
}
