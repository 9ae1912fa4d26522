package evidence

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	s := openAt(t, a.dir, Config{SegmentBytes: 4000, LogKey: &key, Retention: 200 * time.Millisecond}, newIdentity(t))
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
			step = 1 + len(good)/211
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
	if got := a.audit(t); len(got.Findings) > 0 || flips < 1000 {
		t.Errorf("%d octets flipped and put back: %v", flips, got.Findings)
	}
}

// cuts a segment into its header and its records.
func (a auditStore) records(t testing.TB, path string) (header []byte, records [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	eachRecord(t, a.dir, func(of string, at int64, r record) {
		if of == path {
			records = append(records, b[at:at+r.size()])
		}
	})
	return b[:segmentHeader], records
}

func write(t testing.TB, path string, parts ...[]byte) {
	t.Helper()
	if err := os.WriteFile(path, slices.Concat(parts...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each way to tamper with a store has its verdict.
func TestAuditTamperings(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// change lets f change a record of a segment, and makes its checksum right again.
	change := func(t *testing.T, a auditStore, i int, f func(record []byte)) {
		path := a.segment(t, 1)
		header, records := a.records(t, path)
		f(records[i])
		finishRecord(records[i])
		write(t, path, append([][]byte{header}, records...)...)
	}
	table := func(segment string) string { return strings.TrimSuffix(segment, segmentSuffix) + tableSuffix }
	for name, test := range map[string]struct {
		tamper func(t *testing.T, a auditStore)
		want   []string // verdict and file; S1, S2 and so on are segments, T1 and so on tables
	}{
		"record dropped": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, 1))
			write(t, a.segment(t, 1), append([][]byte{header}, slices.Delete(r, 2, 3)...)...)
		}, []string{"altered: T2", "removed: S2"}},
		"records swapped": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, 1))
			r[2], r[3] = r[3], r[2]
			write(t, a.segment(t, 1), append([][]byte{header}, r...)...)
		}, []string{"altered: S2", "altered: T2"}},
		"record twice": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, 1))
			write(t, a.segment(t, 1), append([][]byte{header, r[0], r[1], r[1]}, r[2:]...)...)
		}, []string{"altered: S2", "altered: T2"}},
		"record of another segment": {func(t *testing.T, a auditStore) {
			_, other := a.records(t, a.segment(t, 0))
			header, r := a.records(t, a.segment(t, 1))
			r[2] = other[2]
			write(t, a.segment(t, 1), append([][]byte{header}, r...)...)
		}, []string{"altered: S2", "altered: T2", "removed: S2"}},
		"record dropped and those behind it numbered anew": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, -1))
			r = slices.Delete(r, 1, 2)
			for _, b := range r[1:] {
				binary.BigEndian.PutUint64(b[12:], binary.BigEndian.Uint64(b[12:])-1)
				finishRecord(b)
			}
			write(t, a.segment(t, -1), append([][]byte{header}, r...)...)
		}, []string{"altered: S5"}},
		"closed segment cut between records": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, 1))
			write(t, a.segment(t, 1), append([][]byte{header}, r[:len(r)-1]...)...)
		}, []string{"altered: T2", "cut: S2"}},
		"closed segment cut in a record": {func(t *testing.T, a auditStore) {
			b, err := os.ReadFile(a.segment(t, 1))
			must(t, err)
			write(t, a.segment(t, 1), b[:len(b)-3])
		}, []string{"altered: S2", "altered: T2", "cut: S2"}},
		"last segment cut between records": {func(t *testing.T, a auditStore) {
			header, r := a.records(t, a.segment(t, -1))
			write(t, a.segment(t, -1), append([][]byte{header}, r[:len(r)-2]...)...)
		}, []string{"cut: S5"}},
		"last segment cut in a record": {func(t *testing.T, a auditStore) {
			b, err := os.ReadFile(a.segment(t, -1))
			must(t, err)
			write(t, a.segment(t, -1), b[:len(b)-3])
		}, []string{"altered: S5"}},
		"segment emptied": {func(t *testing.T, a auditStore) { write(t, a.segment(t, 1)) },
			[]string{"altered: S2"}},
		"first segment removed": {func(t *testing.T, a auditStore) { must(t, os.Remove(a.segment(t, 0))) },
			[]string{"foreign: T1", "removed: S1"}},
		"segment removed with its table": {func(t *testing.T, a auditStore) {
			s := a.segment(t, 1)
			must(t, os.Remove(s))
			must(t, os.Remove(table(s)))
		}, []string{"removed: S2"}},
		"last segment removed": {func(t *testing.T, a auditStore) { must(t, os.Remove(a.segment(t, -1))) },
			[]string{"cut: S4"}},
		"all segments removed": {func(t *testing.T, a auditStore) {
			for range 5 {
				s := a.segment(t, 0)
				must(t, os.Remove(s))
				os.Remove(table(s)) // the last has none
			}
		}, []string{"cut: ", "removed: "}},
		"segments change places": {func(t *testing.T, a auditStore) {
			x, y := a.segment(t, 0), a.segment(t, 1)
			must(t, os.Rename(x, x+"x"))
			must(t, os.Rename(y, x))
			must(t, os.Rename(x+"x", y))
		}, []string{"altered: S1", "altered: S2", "altered: S2", "altered: T1", "altered: T2", "removed: 0000000000000004.seg"}},
		"table removed": {func(t *testing.T, a auditStore) { must(t, os.Remove(table(a.segment(t, 0)))) },
			[]string{"removed: T1"}},
		"log removed": {func(t *testing.T, a auditStore) { must(t, os.RemoveAll(filepath.Join(a.dir, logName))) },
			[]string{"removed: log/checkpoint"}},
		"file added": {func(t *testing.T, a auditStore) { write(t, filepath.Join(a.dir, "notes")) },
			[]string{"foreign: notes"}},
		"file added to the log": {func(t *testing.T, a auditStore) { write(t, filepath.Join(a.dir, logName, "notes")) },
			[]string{"foreign: log/notes"}},
		"link for a segment": {func(t *testing.T, a auditStore) {
			s := a.segment(t, 0)
			to := filepath.Join(t.TempDir(), "elsewhere")
			must(t, os.Rename(s, to))
			must(t, os.Symlink(to, s))
		}, []string{"altered: S1", "foreign: T1", "removed: S1"}},
		"time of a record changed":    {func(t *testing.T, a auditStore) { change(t, a, 2, func(b []byte) { b[27] ^= 1 }) }, []string{"altered: S2"}},
		"payload of a record changed": {func(t *testing.T, a auditStore) { change(t, a, 2, func(b []byte) { b[len(b)-1] ^= 1 }) }, []string{"altered: S2"}},
		"type of a record changed":    {func(t *testing.T, a auditStore) { change(t, a, 0, func(b []byte) { b[11] = byte(typeStart) }) }, []string{"altered: S2", "altered: S2"}},
		"locator of a record changed": {func(t *testing.T, a auditStore) { change(t, a, 0, func(b []byte) { b[30] ^= 1 }) }, []string{"altered: S2"}},
		"batch of a record changed": {func(t *testing.T, a auditStore) {
			change(t, a, 2, func(b []byte) { binary.BigEndian.PutUint64(b[60:], binary.BigEndian.Uint64(b[60:])-1) })
		}, []string{"altered: S2"}},
		"header of a segment changed": {func(t *testing.T, a auditStore) {
			b, err := os.ReadFile(a.segment(t, 1))
			must(t, err)
			b[39] ^= 1
			binary.BigEndian.PutUint32(b[40:], crc32.Checksum(b[:40], castagnoli))
			write(t, a.segment(t, 1), b)
		}, []string{"altered: S2"}},
		"record added": {func(t *testing.T, a auditStore) {
			b, err := os.ReadFile(a.segment(t, -1))
			must(t, err)
			write(t, a.segment(t, -1), appendRecord(b, record{kind: typeStart, number: a.audit(t).Next, locator: typeLocator(typeStart), payload: []byte(`{"cut":0}`)}))
		}, []string{"uncovered: S5"}},
		"rubbish added": {func(t *testing.T, a auditStore) {
			b, err := os.ReadFile(a.segment(t, -1))
			must(t, err)
			write(t, a.segment(t, -1), b, []byte("srec rubbish"))
		}, []string{"uncovered: S5"}},
		"expiry that nobody recorded": {func(t *testing.T, a auditStore) {
			s := a.segment(t, 0)
			must(t, os.Remove(s))
			must(t, os.Remove(table(s)))
			path := a.segment(t, -1)
			b, err := os.ReadFile(path)
			must(t, err)
			next := a.audit(t).Next
			st := state{Expired: []span{{0, next}}}
			write(t, path, appendRecord(b, record{kind: typeExpiry, number: next, locator: typeLocator(typeExpiry), payload: st.encode()}))
		}, []string{"uncovered: S5"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuditStore(t)
			names := map[string]string{}
			for i := range 5 {
				s := a.segment(t, i)
				names[filepath.Base(s)] = fmt.Sprintf("S%d", i+1)
				names[filepath.Base(table(s))] = fmt.Sprintf("T%d", i+1)
			}
			test.tamper(t, a)
			found := a.audit(t).Findings
			var got []string
			for _, f := range found {
				path := f.Path
				if short, ok := names[path]; ok {
					path = short
				}
				got = append(got, string(f.Verdict)+": "+path)
			}
			slices.Sort(got)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("%v\nfindings (-want +got):\n%s", found, d)
			}
		})
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
