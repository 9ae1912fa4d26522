package translog

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestWriteSample writes a log for another program to read, with a checkpoint at each of some sizes.
func TestWriteSample(t *testing.T) {
	dir, sizes := os.Getenv("STOPD_SAMPLE_DIR"), os.Getenv("STOPD_SAMPLE_SIZES")
	if dir == "" {
		t.Skip("nobody asks for a sample")
	}
	key := newKey(t)
	w := newWitness(t, "witness.example/w", key)
	for name, text := range map[string]string{"log.pub": key.Public(), "witness.pub": w.key.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Create(filepath.Join(dir, "log"), key); err != nil {
		t.Fatal(err)
	}
	l := open(t, filepath.Join(dir, "log"), key)
	for size := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		grow(t, l, n)
		if failed, err := l.Cosign(t.Context(), policyOf(t, key, 0, w)); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
}
