//go:build unix && !aix

package evidence

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"
)

// Where the system does not keep keys out of swap the store says so once, and keeps reports all the same.
func TestKeysInSwap(t *testing.T) {
	defer func() { lock = unix.Mlock }()
	for _, locks := range []bool{true, false} {
		lock = func([]byte) error {
			if locks {
				return nil
			}
			return errors.ErrUnsupported
		}
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		var hours atomic.Int64
		now := func() time.Time { return time.Unix(986130000+3600*hours.Load(), 0) }
		s, err := Open(t.TempDir()+"/store", configFor(Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: now}, id))
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, "one")
		hours.Add(1) // in a batch with another key
		keep(t, s, "two")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		want := 1
		if locks {
			want = 0
		}
		if n := strings.Count(log.String(), "out of swap"); n != want {
			t.Errorf("locks %v: said %d times:\n%s", locks, n, &log)
		}
	}
}
