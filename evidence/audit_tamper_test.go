package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

// records cuts a segment into its header and its records.
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
			leftAsItIs(t, a)
		})
	}
}

// leftAsItIs checks that a store which does not open for what was done to it is not changed by the attempt: what it is left in
// speaks of who did it.
func leftAsItIs(t *testing.T, a auditStore) {
	t.Helper()
	before := contentsOf(t, a.dir)
	s, err := Open(a.dir, Config{Recipients: []age.Recipient{newIdentity(t).Recipient()}, SegmentBytes: 2500, LogKey: &a.key, AllowVolatile: true})
	if err == nil {
		closeStore(t, s)
		return
	}
	if d := cmp.Diff(before, contentsOf(t, a.dir)); d != "" {
		t.Errorf("the store that does not open (%v) was changed (-before +after):\n%s", err, d)
	}
}

// contentsOf gives the SHA-256 of every file below a directory.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sums[path] = fmt.Sprintf("%d octets, %x", len(b), sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}
