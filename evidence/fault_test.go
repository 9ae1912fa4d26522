package evidence

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

var errDisk = errors.New("disk is on fire")

func TestDiskFails(t *testing.T) {
	short := func(s *Store, err error) func(*os.File, []byte, int64) (int, error) {
		write := s.disk.writeAt
		return func(f *os.File, b []byte, off int64) (int, error) {
			n, _ := write(f, b[:len(b)/2], off)
			return n, err
		}
	}
	for _, test := range []struct {
		name  string
		fail  func(*Store)
		grown bool // the failure leaves bytes that the next start has to judge
	}{
		{"write", func(s *Store) {
			s.disk.writeAt = func(*os.File, []byte, int64) (int, error) { return 0, errDisk }
		}, false},
		{"short write", func(s *Store) { s.disk.writeAt = short(s, nil) }, false},
		{"write that ends early", func(s *Store) { s.disk.writeAt = short(s, errDisk) }, false},
		{"write, then cut", func(s *Store) {
			s.disk.writeAt = short(s, errDisk)
			s.disk.truncate = func(*os.File, int64) error { return errDisk }
		}, true},
		{"sync", func(s *Store) {
			s.disk.sync = func(*os.File) error { return errDisk }
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := newIdentity(t)
			var log strings.Builder
			s := openTest(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, id)
			token := keep(t, s, "before")
			before, err := os.Stat(s.open.path)
			if err != nil {
				t.Fatal(err)
			}
			whole := s.disk
			test.fail(s)
			if token, err := s.Keep(t.Context(), []byte("during"), stop.Payer{}); !errors.Is(err, ErrStore) || token != (stop.Token{}) {
				t.Errorf("Keep: %v, %v, want %v", token, err, ErrStore)
			}
			s.disk = whole // that it works again does not tell what is on it
			if _, err := s.Keep(t.Context(), []byte("after"), stop.Payer{}); !errors.Is(err, ErrStore) {
				t.Errorf("Keep afterwards: %v, want %v", err, ErrStore)
			}
			if err := s.KeepTraceback(t.Context(), token, []byte("after")); !errors.Is(err, ErrStore) {
				t.Errorf("KeepTraceback afterwards: %v, want %v", err, ErrStore)
			}
			if _, err := s.Export(t.Context(), asking(token)); !errors.Is(err, ErrStore) {
				t.Errorf("Export afterwards: %v, want %v", err, ErrStore)
			}
			after, err := os.Stat(s.open.path)
			if err != nil {
				t.Fatal(err)
			}
			if grown := after.Size() != before.Size(); grown != test.grown {
				t.Errorf("size %d, before %d", after.Size(), before.Size())
			}
			closeStore(t, s)
			if n := strings.Count(log.String(), `msg="store failed`); n != 1 {
				t.Errorf("%d lines say that the store failed, want 1:\n%s", n, log.String())
			}
			s = openAt(t, s.dir, Config{}, id)
			if e, err := Unseal(export(t, s, token), id); err != nil || string(e.Report) != "before" {
				t.Errorf("after opening again: %q, %v", e.Report, err)
			}
			if _, err := s.Export(t.Context(), asking(stop.TokenOf([]byte("after")))); !errors.Is(err, ErrNotFound) {
				t.Errorf("a refused report: %v, want %v", err, ErrNotFound)
			}
		})
	}
}

// Of many that keep while the disk fails, those who were answered find their reports.
func TestDiskFailsUnderLoad(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	write := s.disk.writeAt
	var writes atomic.Int32
	s.disk.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		if writes.Add(1) > 5 {
			n, _ := write(f, b[:len(b)-1], off)
			return n, nil
		}
		return write(f, b, off)
	}
	var mu sync.Mutex
	var acknowledged []stop.Token
	var keeping sync.WaitGroup
	for i := range 32 {
		keeping.Go(func() {
			for j := 0; ; j++ {
				token, err := s.Keep(t.Context(), fmt.Appendf(nil, "report %d of %d", j, i), stop.Payer{})
				if err != nil {
					if !errors.Is(err, ErrStore) {
						t.Errorf("Keep: %v, want %v", err, ErrStore)
					}
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, token)
				mu.Unlock()
			}
		})
	}
	keeping.Wait()
	closeStore(t, s)
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	s = openAt(t, s.dir, Config{}, id)
	for _, token := range acknowledged {
		export(t, s, token)
	}
	reports := 0
	for _, e := range entries(t, s.dir) {
		if e.Type == "report" {
			reports++
		}
	}
	if diff := cmp.Diff(len(acknowledged), reports); diff != "" {
		t.Errorf("reports acknowledged and kept (-acknowledged +kept):\n%s", diff)
	}
}

// One sync answers all who wait for it.
func TestGroupCommit(t *testing.T) {
	s := openTest(t, Config{}, newIdentity(t))
	syncData := s.disk.sync
	entered, resume := make(chan struct{}), make(chan struct{})
	syncs := 0
	s.disk.sync = func(f *os.File) error {
		if syncs++; syncs == 1 {
			close(entered)
			<-resume
		}
		return syncData(f)
	}
	var keeping sync.WaitGroup
	keepOne := func(report string) {
		keeping.Go(func() {
			if _, err := s.Keep(t.Context(), []byte(report), stop.Payer{}); err != nil {
				t.Error(err)
			}
		})
	}
	keepOne("first")
	<-entered
	for i := range 20 {
		keepOne(fmt.Sprint("waiting ", i))
	}
	for len(s.queue) < 20 {
		// The sync is held up until all others wait.
		runtime.Gosched()
	}
	close(resume)
	keeping.Wait()
	closeStore(t, s)
	if syncs != 2 {
		t.Errorf("%d syncs, want 2", syncs)
	}
}
