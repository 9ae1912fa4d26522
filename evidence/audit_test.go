package evidence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

func alone(t testing.TB, key translog.Key) translog.Policy {
	t.Helper()
	p, err := translog.NewPolicy(key.Verifier(), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func eachRecord(t testing.TB, dir string, f func(path string, at int64, r record)) {
	t.Helper()
	r, err := newReading(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = r.walk(context.Background(), nil, func(n uint64, at int64, rec record) error {
		f(segmentPath(dir, n), at, rec)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An auditStore is a closed store of five segments with its log: the first two segments have expired.
type auditStore struct {
	dir string
	key translog.Key
	p   translog.Policy
	old stop.Token // expired
	new stop.Token // in the first segment that is there
}

func newAuditStore(t testing.TB) auditStore {
	t.Helper()
	a := auditStore{dir: filepath.Join(t.TempDir(), "store"), key: newLogKey(t)}
	a.p = alone(t, a.key)
	id := newIdentity(t)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := Config{SegmentBytes: 1500, Now: clock(begin), LogKey: &a.key}
	s := openAt(t, a.dir, c, id)
	for i := range 4 {
		a.old = keep(t, s, fmt.Sprintf("an old report, number %d", i))
		keepTraceback(t, s, a.old, "nobody")
	}
	closeStore(t, s)
	c = Config{SegmentBytes: 2500, Now: clock(begin.AddDate(1, 0, 0)), Retention: 24 * time.Hour, LogKey: &a.key}
	s = openAt(t, a.dir, c, id)
	s.retain(s.now())
	for i := range 4 {
		token := keep(t, s, fmt.Sprintf("report %d", i))
		keepTraceback(t, s, token, "host.example said nothing")
		export(t, s, token)
		if i == 0 {
			a.new = token
		}
	}
	closeStore(t, s)
	if n, err := segments(a.dir); err != nil || len(n) < 3 || n[0] == 1 {
		t.Fatalf("segments %d, %v", n, err)
	}
	return a
}

func (a auditStore) audit(t testing.TB) *Audited {
	t.Helper()
	got, err := Audit(t.Context(), a.dir, a.p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (a auditStore) segment(t testing.TB, i int) string {
	t.Helper()
	n, err := segments(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	if i < 0 {
		i += len(n)
	}
	return segmentPath(a.dir, n[i])
}

func TestAuditSound(t *testing.T) {
	a := newAuditStore(t)
	got := a.audit(t)
	var records uint64
	eachRecord(t, a.dir, func(string, int64, record) { records++ })
	if len(got.Findings) > 0 || got.Records != records || got.Expired == 0 || got.Records+got.Expired != got.Next || int64(got.Next) != got.Log.Head.N {
		t.Errorf("%+v, %d records", got, records)
	}
}

// Whoever audits while records are written, segments closed and expired, and checkpoints signed finds nothing.
func TestAuditBesideTheWriter(t *testing.T) {
	defer func(d time.Duration) { housekeeping = d }(housekeeping)
	housekeeping = 10 * time.Millisecond
	key := newLogKey(t)
	a := auditStore{dir: filepath.Join(t.TempDir(), "store"), key: key, p: alone(t, key)}
	// An hour passes with each audit, so that segments expire beside it, but none that was written since it began.
	now, c := aging(t)
	c.LogKey, c.SegmentBytes, c.Retention = &key, 4000, 3*time.Hour
	s := openAt(t, a.dir, c, newIdentity(t))
	stopped := make(chan struct{})
	var writing sync.WaitGroup
	for range 3 {
		writing.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				if _, err := s.Keep(t.Context(), fmt.Appendf(nil, "report %d", i), stop.Payer{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Go(func() {
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if err := s.Log().Checkpoint(); err != nil {
				t.Error(err)
			}
		}
	})
	expired := false
	for n := 0; n < 30 || !expired; n++ {
		now.pass(time.Hour)
		got := a.audit(t)
		if len(got.Findings) > 0 || !got.Writing {
			t.Errorf("audit %d: writing %v, %v", n, got.Writing, got.Findings)
			break
		}
		expired = expired || got.Expired > 0
	}
	close(stopped)
	writing.Wait()
	closeStore(t, s)
	if got := a.audit(t); len(got.Findings) > 0 || got.Writing || int64(got.Next) != got.Log.Head.N {
		t.Errorf("at the end: %+v", got)
	}
}

// What a crash left is said, until the next start has closed it.
func TestAuditAfterACrash(t *testing.T) {
	a := newAuditStore(t)
	id := newIdentity(t)
	c := Config{LogKey: &a.key}
	s := openAt(t, a.dir, c, id)
	if err := s.Log().Checkpoint(); err != nil {
		t.Fatal(err)
	}
	keep(t, s, "a report that no checkpoint covers")
	// What a crash here leaves, but for its lock.
	crashed := auditStore{dir: filepath.Join(t.TempDir(), "store"), key: a.key, p: a.p}
	if err := os.CopyFS(crashed.dir, os.DirFS(a.dir)); err != nil {
		t.Fatal(err)
	}
	last := crashed.segment(t, -1)
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{b, b[:len(b)-5]} {
		write(t, last, content)
		found := crashed.audit(t).Findings
		if len(found) != 1 || found[0].Verdict != translog.Uncovered || !strings.Contains(found[0].Detail, "crash or cut: start stopd to close it") {
			t.Errorf("after a crash: %v", found)
		}
	}
	closeStore(t, openAt(t, crashed.dir, c, id))
	if found := crashed.audit(t).Findings; len(found) > 0 {
		t.Errorf("after the next start: %v", found)
	}
}

// Whatever octet of whatever file is flipped, that file is named.
func TestAuditEveryOctet(t *testing.T) {
	a := newAuditStore(t)
	flips := 0
	err := filepath.WalkDir(a.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(a.dir, path)
		if err != nil {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		step := 1
		if !soak {
			step = 1 + len(good)/67
		}
		for i := 0; i < len(good); i += step {
			bad := slices.Clone(good)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				return err
			}
			found := a.audit(t).Findings
			if !slices.ContainsFunc(found, func(f translog.Finding) bool { return f.Path == name && f.Verdict == translog.Altered }) {
				t.Fatalf("%s: octet %d flipped: %v", name, i, found)
			}
			flips++
		}
		return os.WriteFile(path, good, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d octets flipped", flips)
	if got := a.audit(t); len(got.Findings) > 0 || flips < 500 {
		t.Errorf("%d octets flipped and put back: %v", flips, got.Findings)
	}
}

// A token that is not found was never issued, has expired, or its record was removed: the log tells.
func TestMissing(t *testing.T) {
	a := newAuditStore(t)
	s := openAt(t, a.dir, Config{LogKey: &a.key}, newIdentity(t))
	never := stop.Token{1}
	for _, token := range []stop.Token{a.old, never} {
		if _, err := s.Export(t.Context(), asking(token)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	says := func(token stop.Token, is error, text string) {
		t.Helper()
		if err := Missing(t.Context(), a.dir, token); !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %v: %s", err, is, text)
		}
	}
	says(stop.Token{2}, ErrNotFound, "nothing of it is in the log")
	says(never, ErrNotFound, "only that somebody asked for it")
	says(a.old, ErrNotFound, "has expired")
	var of string
	eachRecord(t, a.dir, func(path string, _ int64, r record) {
		if r.kind == typeReport && r.locator == locate(reportLabel, a.new) {
			of = path
		}
	})
	for _, path := range []string{of, strings.TrimSuffix(of, segmentSuffix) + tableSuffix} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	says(a.new, ErrAltered, "is in the log, and not in the store")
}
