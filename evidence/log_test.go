package evidence

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
)

// resealed is a store with a log, in which somebody who knows what a report says has sealed all of its batch anew, to the
// public key, with another trace-back: every record is whole and opens.
func resealed(t *testing.T) (w written, c Config) {
	t.Helper()
	w = written{id: newIdentity(t)}
	key := newLogKey(t)
	c = configFor(Config{LogKey: &key}, w.id)
	s := openTest(t, Config{LogKey: &key}, w.id)
	w.dir, w.path = s.dir, s.open.path
	w.token = keep(t, s, "report one")
	keepTraceback(t, s, w.token, "asked 192.0.2.1")
	closeStore(t, s)
	b, payload, err := newBatch(1, time.Now(), []age.Recipient{w.id.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	forged, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	forged = forged[:segmentHeader]
	eachRecord(t, w.dir, func(_ string, _ int64, r record) {
		seal := func(step int, content []byte) {
			packed, err := pack(content, step)
			if err == nil {
				forged, err = sealRecord(forged, r, b.key(), packed)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		switch r.kind {
		case typeBatch:
			r.payload = payload
			forged = appendRecord(forged, r)
		case typeReport:
			seal(step, []byte("report one"))
		case typeTraceback:
			seal(tracebackStep, append(bytes.Clone(w.token[:]), "asked 203.0.113.9"...))
		default:
			forged = appendRecord(forged, r)
		}
	})
	w.restore(t, forged)
	return w, c
}

// Records that open and are whole, but are not those that the log has, are not given out.
func TestExportIsHeldAgainstTheLog(t *testing.T) {
	w, c := resealed(t)
	if b, err := Export(t.Context(), w.dir, asking(w.token), c); !errors.Is(err, ErrAltered) || b != nil {
		t.Errorf("%d bytes, %v, want none and %v", len(b), err, ErrAltered)
	}
	// It is the log that tells: nothing else does.
	w, c = resealed(t)
	c.LogKey = nil
	b, err := Export(t.Context(), w.dir, asking(w.token), c)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Unseal(b, w.id); err != nil || len(e.Tracebacks) != 1 || string(e.Tracebacks[0]) != "asked 203.0.113.9" {
		t.Errorf("%q, %v", e.Tracebacks, err)
	}
}

// A log of which the tiles are gone proves nothing: what is sound is given out, and it is said.
func TestExportWithoutTiles(t *testing.T) {
	key, id := newLogKey(t), newIdentity(t)
	s := openTest(t, Config{LogKey: &key}, id)
	token := keep(t, s, "report")
	if _, err := s.collect(token); err != nil {
		t.Errorf("under no checkpoint yet: %v", err)
	}
	if err := s.log.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.collect(token); err != nil {
		t.Errorf("under a checkpoint: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, logName, "tile", "0")); err != nil {
		t.Fatal(err)
	}
	b, err := s.Export(t.Context(), asking(token))
	if !errors.Is(err, ErrAltered) {
		t.Errorf("without tiles: %v, want %v", err, ErrAltered)
	}
	if e, err := Unseal(b, id); err != nil || e.Token != token {
		t.Errorf("without tiles: %v", err)
	}
}
