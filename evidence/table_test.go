package evidence

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// Every record is found in a table, and none that is not in it, whatever the locators are.
func TestTable(t *testing.T) {
	alike := func(b []byte) { clear(b[:20]) } // as no hash is: the guess is wrong
	for name, spoil := range map[string]func([]byte){"hashes": func([]byte) {}, "alike": alike} {
		for _, n := range []int{0, 1, 2, blockPlaces, blockPlaces + 1, 3_000} {
			places := make([]place, 0, n)
			for i := range n {
				var l locator
				rand.Read(l[:])
				spoil(l[:])
				places = append(places, place{l, int64(100 * i)})
			}
			if n > 2 {
				places[1].locator = places[0].locator // two trace-backs of one token
			}
			for i := range n / 40 { // or as many as fill blocks
				places[i].locator = places[0].locator
			}
			var batches []batchPlace
			for i := range n / 3 {
				batches = append(batches, batchPlace{uint64(3*i + 1), int64(7 * i)})
			}
			slices.Reverse(batches)
			b := appendTable(nil, contents{segment: 4, first: 10, next: 10 + uint64(n), size: 5, last: 6}, slices.Clone(places), batches)
			r := bytes.NewReader(b)
			c, err := decodeTableHeader(b, int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.verify(r); err != nil {
				t.Error(err)
			}
			want := map[locator][]int64{}
			for _, p := range places {
				want[p.locator] = append(want[p.locator], p.offset)
			}
			for l, offsets := range want {
				if got, err := c.find(r, l); err != nil || !slices.Equal(got, offsets) {
					t.Fatalf("%s, %d: found %v, %v, want %v", name, n, got, err, offsets)
				}
				l[31]++
				if got, err := c.find(r, l); err != nil || len(got) > 0 && want[l] == nil {
					t.Fatalf("%s, %d: found %v, %v, which is not there", name, n, got, err)
				}
			}
			for _, p := range batches {
				off, ok, err := c.batch(r, p.number)
				if err != nil || !ok || off != p.offset {
					t.Fatalf("batch %d: %d, %t, %v", p.number, off, ok, err)
				}
				if _, ok, _ := c.batch(r, p.number+1); ok {
					t.Fatalf("batch %d is found", p.number+1)
				}
			}
		}
	}
}

func FuzzDecodeTable(f *testing.F) {
	f.Add(appendTable(nil, contents{segment: 1, next: 2}, []place{{locator{1}, 3}}, []batchPlace{{1, 2}}), []byte{1})
	f.Add([]byte(tableMagic), []byte{})
	f.Fuzz(func(t *testing.T, b, want []byte) {
		c, err := decodeTableHeader(b, int64(len(b)))
		if err != nil {
			if c != (contents{}) {
				t.Fatalf("contents with error %v are not zero", err)
			}
			return
		}
		var l locator
		copy(l[:], want)
		r := bytes.NewReader(b)
		if _, err := c.find(r, l); err != nil && !errors.Is(err, ErrAltered) {
			t.Fatal(err)
		}
		if _, _, err := c.batch(r, uint64(len(want))); err != nil {
			t.Fatal(err)
		}
		c.verify(r)
	})
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{"expired":[{"first":0,"next":3}],"holds":[]}`))
	f.Add(state{}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			if diff := cmp.Diff(state{}, s); diff != "" {
				t.Fatalf("state with error %v is not empty", err)
			}
			return
		}
		again, err := decodeState(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("%s, encoded again %s, %v", s.encode(), again.encode(), err)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	packed, err := pack([]byte(`{"version":1}`), step)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		content, err := unpack(b)
		if err == nil && len(content) > maxPlaintext {
			t.Fatalf("%d bytes of %d", len(content), len(b))
		}
	})
}

// small has segments of a few records.
var small = Config{SegmentBytes: 4 << 10}

// fill keeps reports with trace-backs until there are n segments.
func fill(t testing.TB, s *Store, n uint64) []stop.Token {
	t.Helper()
	var tokens []stop.Token
	for s.current().number < n {
		token := keep(t, s, fmt.Sprintf("report %d of %d", len(tokens), s.current().number))
		keepTraceback(t, s, token, "asked")
		tokens = append(tokens, token)
	}
	return tokens
}

// current is the segment that is written.
func (s *Store) current() segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.open.segment
}

func found(t *testing.T, s *Store, tokens []stop.Token, id age.Identity) {
	t.Helper()
	for i, token := range tokens {
		e, err := Unseal(export(t, s, token), id)
		if err != nil || e.Token != token || len(e.Tracebacks) != 1 {
			t.Fatalf("token %d of %d: %v, %d trace-backs", i, len(tokens), err, len(e.Tracebacks))
		}
	}
}

// What is in closed segments is found, while the store is open and once it is opened again, by tables that are there
// and such that have to be made anew.
func TestSegments(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, small, id)
	tokens := fill(t, s, 6)
	found(t, s, tokens, id)
	closeStore(t, s)
	s = openAt(t, s.dir, small, id)
	found(t, s, tokens, id)
	closeStore(t, s)
	before, err := os.ReadFile(tablePath(s.dir, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(tablePath(s.dir, 2)), os.WriteFile(tablePath(s.dir, 3)+tempSuffix, []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, s.dir, small, id)
	found(t, s, tokens, id)
	closeStore(t, s)
	if after, err := os.ReadFile(tablePath(s.dir, 2)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the table that was made anew differs (%v)", err)
	}
	all := entries(t, s.dir)
	for i, e := range all {
		if e.Number != uint64(i) {
			t.Fatalf("entry %d has number %d", i, e.Number)
		}
	}
	if last := all[len(all)-1].Segment; last < 6 {
		t.Errorf("the last entry is in segment %d", last)
	}
}

// A segment that is gone, cut or exchanged is found out; so is a table that hides a record.
func TestSegmentsDamaged(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, small, id)
	tokens := fill(t, s, 5)
	closeStore(t, s)
	c := configFor(small, id)
	c.disk = quick()
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	files := map[string][]byte{}
	paths, _ := filepath.Glob(filepath.Join(s.dir, "0*"))
	for _, p := range paths {
		files[p] = read(p)
	}
	restore := func() {
		now, _ := filepath.Glob(filepath.Join(s.dir, "0*"))
		for _, p := range now {
			if files[p] == nil {
				os.Remove(p)
			}
		}
		for p, b := range files {
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	second, third := segmentPath(s.dir, 2), segmentPath(s.dir, 3)
	for name, do := range map[string]func() error{
		"first removed":  func() error { return errors.Join(os.Remove(segmentPath(s.dir, 1)), os.Remove(tablePath(s.dir, 1))) },
		"middle removed": func() error { return errors.Join(os.Remove(second), os.Remove(tablePath(s.dir, 2))) },
		"cut":            func() error { return os.Truncate(second, int64(len(files[second])-10)) },
		"exchanged": func() error {
			return errors.Join(os.WriteFile(second, files[third], 0o600), os.WriteFile(third, files[second], 0o600))
		},
	} {
		restore()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(s.dir, c); !errors.Is(err, ErrAltered) {
			s.Close()
			t.Errorf("%s: Open: %v, want %v", name, err, ErrAltered)
		}
		if err := List(s.dir, func(Entry) error { return nil }); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: List: %v, want %v", name, err, ErrAltered)
		}
	}
	// A byte of any table: the token is found, or it is said that something is wrong.
	table := tablePath(s.dir, 2)
	for i := range files[table] {
		restore() // without the custody that grew
		b := bytes.Clone(files[table])
		b[i] ^= 1
		if err := os.WriteFile(table, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, token := range tokens[len(tokens)/4 : len(tokens)/4+3] {
			sealed, err := Export(t.Context(), s.dir, asking(token), c)
			e, unsealing := Unseal(sealed, id)
			if err == nil && (unsealing != nil || e.Token != token) || err != nil && !errors.Is(err, ErrAltered) && !errors.Is(err, ErrVersion) {
				t.Fatalf("byte %d: %v, %v", i, err, unsealing)
			}
			if err == nil && len(e.Tracebacks) != 1 {
				t.Fatalf("byte %d hides a trace-back, and nothing is said", i)
			}
		}
	}
}

// verify reads the whole table and checks its checksum.
func (c contents) verify(r io.ReaderAt) error {
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, io.NewSectionReader(r, tableHeader, c.bytes()-tableHeader)); err != nil {
		return fmt.Errorf("read table: %w", err)
	}
	if h.Sum32() != c.sum {
		return fmt.Errorf("read table: %w", ErrAltered)
	}
	return nil
}
