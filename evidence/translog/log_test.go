package translog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

func newKey(t testing.TB) Key {
	t.Helper()
	text, err := GenerateKey("host.example")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// leafOf is the leaf of the n'th record of a test.
func leafOf(n int64) Leaf {
	b := binary.BigEndian.AppendUint64(nil, uint64(n))
	return Leaf{time.Unix(1e9, n).UTC(), sha256.Sum256(append(b, 'l')), sha256.Sum256(append(b, 'c'))}
}

func leavesOf(from, to int64) (leaves []Leaf) {
	for n := from; n < to; n++ {
		leaves = append(leaves, leafOf(n))
	}
	return leaves
}

func create(t testing.TB, key Key) *Log {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	if err := Create(dir, key); err != nil {
		t.Fatal(err)
	}
	return open(t, dir, key)
}

func open(t testing.TB, dir string, key Key) *Log {
	t.Helper()
	l, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// grow appends the leaves of a test up to a size, and signs.
func grow(t testing.TB, l *Log, size int64) {
	t.Helper()
	if err := l.Append(leavesOf(l.Size(), size)); err != nil {
		t.Fatal(err)
	}
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

// files lists the files below a directory.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// naive is the root of a tree as RFC 6962, 2.1, defines it.
func naive(leaves []Leaf) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(leaves[0].Append([]byte{0}))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		a, b := naive(leaves[:k]), naive(leaves[k:])
		return sha256.Sum256(slices.Concat([]byte{1}, a[:], b[:]))
	}
}

// The root is RFC 6962's at every size, whether the log was written in one go or opened at each.
func TestRoots(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	sizes := []int64{0, 1, 2, 3, 5, 7, 8, 250, 255, 256, 257, 300, 511, 512, 513, 1000, 65535, 65536, 65537, 66000}
	for _, size := range sizes {
		grow(t, l, size)
		want := tlog.Tree{N: size, Hash: naive(leavesOf(0, size))}
		if d := cmp.Diff(want, l.Head().Tree); d != "" {
			t.Fatalf("tree at %d (-want +got):\n%s", size, d)
		}
		l = open(t, l.dir, key)
		if d := cmp.Diff(want, l.Head().Tree); d != "" || l.Size() != size {
			t.Fatalf("tree at %d, opened again (-want +got):\n%s", size, d)
		}
	}
	head := l.Head().Tree
	for i, size := range sizes {
		if size == 0 {
			continue
		}
		at, err := TreeAt(l.dir, head, size)
		if err != nil || at.Hash != naive(leavesOf(0, size)) {
			t.Errorf("tree at %d of a larger one: %v, %v", size, at, err)
		}
		for _, old := range sizes[1:i] {
			p, err := Consistency(l.dir, at, old)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckTree(p, at.N, at.Hash, old, naive(leavesOf(0, old))); err != nil {
				t.Errorf("consistency of %d with %d: %v", size, old, err)
			}
		}
		p, err := inclusion(l.dir, at, size-1)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, at.N, at.Hash, size-1, tlog.RecordHash(leafOf(size-1).Append(nil))); err != nil {
			t.Errorf("inclusion of %d in %d: %v", size-1, size, err)
		}
	}
}

// The files are those of a tree of the checkpoint's size, and no other.
func TestFiles(t *testing.T) {
	l := create(t, newKey(t))
	for _, test := range []struct {
		size int64
		want []string
	}{
		{0, []string{"checkpoint"}},
		{3, []string{"checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"}},
		{255, []string{"checkpoint", "tile/0/000.p/255", "tile/entries/000.p/255"}},
		{256, []string{"checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"}},
		{600, []string{"checkpoint", "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2",
			"tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"}},
	} {
		grow(t, l, test.size)
		if d := cmp.Diff(test.want, files(t, l.dir)); d != "" {
			t.Errorf("files at %d (-want +got):\n%s", test.size, d)
		}
	}
}

// Whatever a crash leaves behind the checkpoint, the log opens at it, and is the same when the leaves come again.
func TestTailIsWrittenAgain(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	grow(t, l, 300)
	want := files(t, l.dir)
	l.most = 32
	if err := l.Append(leavesOf(300, 300+256*20)); err != nil { // enough to be written before the checkpoint
		t.Fatal(err)
	}
	if len(files(t, l.dir)) == len(want) {
		t.Fatal("nothing was written before the checkpoint")
	}
	for _, name := range []string{"checkpoint.tmp", "tile/0/001.p/77", "tile/0/001.p/78.tmp", "tile/entries/001.p/77"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, l.dir, key)
	if d := cmp.Diff(want, files(t, l.dir)); d != "" || again.Size() != 300 {
		t.Fatalf("size %d, files (-want +got):\n%s", again.Size(), d)
	}
	grow(t, again, 2000)
	if again.Head().Hash != naive(leavesOf(0, 2000)) {
		t.Error("another root")
	}
}

// A checkpoint that cannot be written leaves the one before, and the next one has everything.
func TestCheckpointFails(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	grow(t, l, 10)
	for _, obstacle := range []string{"tile/0/000.tmp", "tile/entries/001.p/44.tmp", "checkpoint.tmp"} {
		path := filepath.Join(l.dir, obstacle)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		before := l.Head()
		if err := l.Append(leavesOf(l.Size(), 300)); err != nil {
			t.Fatal(err)
		}
		if err := l.Checkpoint(); err == nil {
			t.Fatalf("%s is full, and the checkpoint was written", obstacle)
		}
		if d := cmp.Diff(before.Note(), l.Head().Note()); d != "" {
			t.Errorf("%s is full: head changed:\n%s", obstacle, d)
		}
		if onDisk, err := ReadSigned(filepath.Join(l.dir, "checkpoint"), key); err != nil || onDisk.N != 10 {
			t.Errorf("%s is full: the checkpoint on disk: %v, %v", obstacle, onDisk.N, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	grow(t, l, 300)
	if l = open(t, l.dir, key); l.Head().Hash != naive(leavesOf(0, 300)) {
		t.Error("another root")
	}
}

func TestOpenRefuses(t *testing.T) {
	key := newKey(t)
	for name, change := range map[string]func(t *testing.T, dir string){
		"no checkpoint":     func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "checkpoint")) },
		"no last tile":      func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "tile/0/001.p")) },
		"no last bundle":    func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "tile/entries/001.p")) },
		"no level":          func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, "tile/1")) },
		"a hash":            func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/0/001.p/44"), 40) },
		"a leaf":            func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/entries/001.p/44"), 40) },
		"a leaf's length":   func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "tile/entries/001.p/44"), 1) },
		"a short last tile": func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, "tile/0/001.p/44"), 64) },
		"the size":          func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "checkpoint"), len(key.Origin())+1) },
		"another log's": func(t *testing.T, dir string) {
			other := create(t, newKey(t))
			os.Rename(filepath.Join(other.dir, "checkpoint"), filepath.Join(dir, "checkpoint"))
		},
		"cosigned is larger": func(t *testing.T, dir string) { put(t, filepath.Join(dir, "cosigned"), key, tlog.Tree{N: 301}) },
		"cosigned differs":   func(t *testing.T, dir string) { put(t, filepath.Join(dir, "cosigned"), key, tlog.Tree{N: 10}) },
	} {
		t.Run(name, func(t *testing.T) {
			l := create(t, key)
			grow(t, l, 300)
			change(t, l.dir)
			before := files(t, l.dir)
			if _, err := Open(l.dir, key); !errors.Is(err, ErrAltered) {
				t.Errorf("Open: %v, want %v", err, ErrAltered)
			}
			if d := cmp.Diff(before, files(t, l.dir)); d != "" {
				t.Errorf("it was changed:\n%s", d)
			}
		})
	}
}

func put(t *testing.T, path string, key Key, tree tlog.Tree) {
	t.Helper()
	s, err := key.sign(tree)
	if err == nil {
		err = os.WriteFile(path, s.note, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Appending, signing and reading go on at once. Readers see a whole log at every checkpoint.
func TestReadersBesideTheWriter(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	const size = 900
	written := make(chan error, 1)
	go func() {
		for n := int64(0); n < size; n += 7 {
			if err := errors.Join(l.Append(leavesOf(n, min(n+7, size))), l.Checkpoint()); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for done := false; !done; {
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
		head, err := ReadSigned(filepath.Join(l.dir, "checkpoint"), key)
		if err != nil {
			t.Fatal(err)
		}
		if head.N == 0 {
			continue
		}
		p, err := inclusion(l.dir, head.Tree, head.N/2)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p, head.N, head.Hash, head.N/2, tlog.RecordHash(leafOf(head.N/2).Append(nil))); err != nil {
			t.Fatal(err)
		}
	}
	if l.Head().N != size {
		t.Errorf("%d leaves signed, want %d", l.Head().N, size)
	}
}

// Who follows a log is told each leaf once, with the hash that the log has of it.
func TestFollow(t *testing.T) {
	l := create(t, newKey(t))
	told := map[int64]tlog.Hash{}
	if err := l.Append(leavesOf(0, 3)); err != nil {
		t.Fatal(err)
	}
	l.Follow(func(n int64, h tlog.Hash) { told[n] = h })
	if err := l.Append(leavesOf(3, 600)); err != nil {
		t.Fatal(err)
	}
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	var leaves []int64
	for n := range int64(600) {
		leaves = append(leaves, 599-n)
	}
	hashes, err := LeafHashes(l.dir, l.Head().Tree, leaves)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range leaves {
		if h, ok := told[n]; ok != (n >= 3) || ok && h != hashes[i] {
			t.Errorf("leaf %d: told %t", n, ok)
		}
	}
	for _, n := range []int64{-1, 600} {
		if _, err := LeafHashes(l.dir, l.Head().Tree, []int64{n}); err == nil {
			t.Errorf("leaf %d is found", n)
		}
	}
}

func inclusion(dir string, tree tlog.Tree, n int64) (tlog.RecordProof, error) {
	return tlog.ProveRecord(tree.N, n, tlog.TileHashReader(tree, tileReader(dir)))
}
