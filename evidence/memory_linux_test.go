package evidence

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
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
func scan(t *testing.T, secrets map[string][]byte) map[string]int {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	const overlap = 64
	buffer := make([]byte, 1<<20)
	defer clear(buffer)
	count := map[string]int{}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(mode, "rw") || strings.HasSuffix(lines.Text(), "[vvar]") {
			continue
		}
		for at := from; at < to; at += uint64(len(buffer) - overlap) {
			n, err := mem.ReadAt(buffer[:min(uint64(len(buffer)), to-at)], int64(at))
			if err != nil && n == 0 {
				break // not readable, such as a device's memory
			}
			for i := range buffer[:n] {
				buffer[i] ^= mask // and the copy is masked, too
			}
			for name, secret := range secrets {
				count[name] += bytes.Count(buffer[:n], secret)
			}
		}
	}
	return count
}

// Once a batch has closed, its key is nowhere in the memory of this process, nor is what is derived from it. That the scan
// finds a key is shown while the batch is open.
func TestKeysAreErased(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	for i := range 20 {
		keep(t, s, fmt.Sprintf("report %d", i))
	}
	secrets := map[string][]byte{}
	derive := func() {
		key := s.batch.key()
		secrets["batch key"] = masked(key)
		extracted, err := hkdf.Extract(sha256.New, key, nil)
		if err != nil {
			t.Error(err)
		}
		secrets["extracted key"] = masked(extracted)
		for i := range 20 {
			info := append([]byte(recordKeyLabel), 0, 0, 0, 0, 0, 0, 0, byte(i))
			k, err := hkdf.Key(sha256.New, key, nil, string(info), 32)
			if err != nil {
				t.Error(err)
			}
			secrets[fmt.Sprintf("key of record %d", i)] = masked(k)
		}
	}
	s.inBetween(t.Context(), func() {
		if s.batch != nil { // else the second has passed
			secretly(derive)
		}
	})
	if len(secrets) == 0 {
		t.Skip("twenty reports took longer than a batch lasts")
	}
	if n := scan(t, map[string][]byte{"batch key": secrets["batch key"]}); n["batch key"] == 0 {
		t.Fatal("the scan does not find the key of the open batch")
	}
	waitClosed(t, s)
	sweep() // of what this test derived itself
	left := scan(t, secrets)
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
