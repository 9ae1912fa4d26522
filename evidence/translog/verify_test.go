package translog

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A sample is a log of 600 leaves, of which a witness cosigned 300 and 590.
type sample struct {
	dir  string
	key  Key
	head Signed
	p    Policy
}

func newSample(t testing.TB) sample {
	t.Helper()
	key := newKey(t)
	p := policyOf(t, key, 0, newWitness(t, "w.example/w", key))
	l := create(t, key)
	for _, size := range []int64{300, 590} {
		grow(t, l, size)
		if failed, err := l.Cosign(t.Context(), p); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
	}
	grow(t, l, 600)
	return sample{l.dir, key, l.Head(), p}
}

func verify(t testing.TB, dir string, p Policy) *Verification {
	t.Helper()
	v, err := Verify(dir, p, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifySound(t *testing.T) {
	s := newSample(t)
	dir, p := s.dir, s.p
	var leaves []Leaf
	v, err := Verify(dir, p, false, func(n int64, l Leaf) {
		if n != int64(len(leaves)) {
			t.Fatalf("leaf %d after %d", n, len(leaves)-1)
		}
		leaves = append(leaves, l)
	})
	if err != nil || len(v.Findings) > 0 || v.Head.N != 600 || v.Cosigned != 590 || len(v.Cosignatures) != 1 || v.Cosignatures[0].Size != 590 {
		t.Errorf("%v, %+v", err, v)
	}
	if d := cmp.Diff(leavesOf(0, 600), leaves); d != "" {
		t.Errorf("leaves (-want +got):\n%s", d)
	}
	for _, size := range []int64{0, 1, 256, 66000} {
		key := newKey(t)
		l := create(t, key)
		grow(t, l, size)
		if v := verify(t, l.dir, key.policy()); len(v.Findings) > 0 || v.Head.N != size || v.Cosigned != size {
			t.Errorf("size %d: %+v", size, v)
		}
	}
}

// Whatever octet is flipped, its file is named.
func TestEveryOctetOfALog(t *testing.T) {
	s := newSample(t)
	dir, p := s.dir, s.p
	flips := 0
	for _, name := range files(t, dir) {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		step := 1
		if os.Getenv("STOPD_SOAK") == "" && strings.HasPrefix(name, "tile/") {
			step = 1 + len(good)/149
		}
		for i := 0; i < len(good); i += step {
			bad := slices.Clone(good)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if v := verify(t, dir, p); !slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Path == name && f.Verdict == Altered }) {
				t.Fatalf("%s: octet %d flipped: %v", name, i, v.Findings)
			}
			flips++
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d octets flipped", flips)
	if v := verify(t, dir, p); len(v.Findings) > 0 {
		t.Errorf("put back: %v", v.Findings)
	}
}

// Each way to tamper has its verdict.
func TestTamperings(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// copied is what an intruder who is root kept of an earlier state.
	copied := func(t *testing.T, dir string) string {
		t.Helper()
		to := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(to, os.DirFS(dir)))
		return to
	}
	for name, test := range map[string]struct {
		tamper func(t *testing.T, l sample)
		want   []string
	}{
		"checkpoint removed": {func(t *testing.T, l sample) { must(t, os.Remove(filepath.Join(l.dir, "checkpoint"))) },
			[]string{"removed: checkpoint"}},
		"cosigned removed": {func(t *testing.T, l sample) { must(t, os.Remove(filepath.Join(l.dir, "cosigned"))) },
			[]string{"unvouched: "}},
		"full tile removed": {func(t *testing.T, l sample) { must(t, os.Remove(filepath.Join(l.dir, "tile/0/001"))) },
			[]string{"removed: tile/0/001"}},
		"full bundle removed": {func(t *testing.T, l sample) { must(t, os.Remove(filepath.Join(l.dir, "tile/entries/000"))) },
			[]string{"removed: tile/entries/000"}},
		"level removed": {func(t *testing.T, l sample) { must(t, os.RemoveAll(filepath.Join(l.dir, "tile/1"))) },
			[]string{"removed: tile/1/000.p/2"}},
		"last bundle removed": {func(t *testing.T, l sample) { must(t, os.RemoveAll(filepath.Join(l.dir, "tile/entries/002.p"))) },
			[]string{"removed: tile/entries/002.p/88"}},
		"leaves and hashes removed": {func(t *testing.T, l sample) { must(t, os.RemoveAll(filepath.Join(l.dir, "tile"))) },
			[]string{"removed: tile/0/000", "removed: tile/0/001", "removed: tile/0/002.p/88", "removed: tile/entries/000",
				"removed: tile/entries/001", "removed: tile/entries/002.p/88"}},
		"tile cut": {func(t *testing.T, l sample) { must(t, os.Truncate(filepath.Join(l.dir, "tile/entries/001"), 74*255)) },
			[]string{"altered: tile/entries/001"}},
		"tile longer": {func(t *testing.T, l sample) { must(t, os.Truncate(filepath.Join(l.dir, "tile/0/001"), 8193)) },
			[]string{"altered: tile/0/001"}},
		"tiles swapped": {func(t *testing.T, l sample) {
			a, b, c := filepath.Join(l.dir, "tile/0/000"), filepath.Join(l.dir, "tile/0/001"), filepath.Join(l.dir, "c")
			must(t, os.Rename(a, c))
			must(t, os.Rename(b, a))
			must(t, os.Rename(c, b))
		}, []string{"altered: tile/0/000", "altered: tile/0/001"}},
		"leaf and its hash replaced": {func(t *testing.T, l sample) {
			path := filepath.Join(l.dir, "tile/entries/000")
			flip(t, path, 7*bundled+20)
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(l.dir, "tile/0/000"), hashesOf(b), 0o600))
		}, []string{"altered: checkpoint"}}, // all that is left to disagree with them
		"link for a file": {func(t *testing.T, l sample) {
			path := filepath.Join(l.dir, "tile/0/000")
			to := filepath.Join(t.TempDir(), "elsewhere")
			must(t, os.Rename(path, to))
			must(t, os.Symlink(to, path))
		}, []string{"altered: tile/0/000"}},
		"file added": {func(t *testing.T, l sample) { must(t, os.WriteFile(filepath.Join(l.dir, "notes"), nil, 0o600)) },
			[]string{"foreign: notes"}},
		"directory added": {func(t *testing.T, l sample) { must(t, os.Mkdir(filepath.Join(l.dir, "tile/more"), 0o700)) },
			[]string{"foreign: tile/more/"}},
		"tile behind the end": {func(t *testing.T, l sample) { must(t, os.WriteFile(filepath.Join(l.dir, "tile/0/002"), nil, 0o600)) },
			[]string{"uncovered: tile/0/002"}},
		"left by a crash": {func(t *testing.T, l sample) {
			must(t, os.WriteFile(filepath.Join(l.dir, "tile/0/002.p/99.tmp"), nil, 0o600))
		}, []string{"uncovered: tile/0/002.p/99.tmp"}},
		"signed by another key": {func(t *testing.T, l sample) {
			put(t, filepath.Join(l.dir, "checkpoint"), newKey(t), l.head.Tree)
		}, []string{"altered: checkpoint"}},
		"cosignatures removed": {func(t *testing.T, l sample) {
			s, err := l.key.sign(l.head.Tree)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(l.dir, "cosigned"), s.note, 0o600))
		}, []string{"altered: cosigned"}},
		"old checkpoint put back": {func(t *testing.T, l sample) {
			at, err := TreeAt(l.dir, l.head.Tree, 300)
			must(t, err)
			put(t, filepath.Join(l.dir, "checkpoint"), l.key, at)
		}, []string{"rolled back: checkpoint", "uncovered: tile/0/001", "uncovered: tile/0/002.p/88", "uncovered: tile/1/000.p/2", "uncovered: tile/entries/001", "uncovered: tile/entries/002.p/88"}},
		"written anew by who has the log's key": {func(t *testing.T, l sample) {
			cosigned := filepath.Join(copied(t, l.dir), "cosigned")
			must(t, os.RemoveAll(l.dir))
			must(t, Create(l.dir, l.key))
			anew := open(t, l.dir, l.key)
			leaves := leavesOf(0, 600)
			leaves[100].Content[0] ^= 1
			must(t, anew.Append(leaves))
			must(t, anew.Checkpoint())
			must(t, os.Rename(cosigned, filepath.Join(l.dir, "cosigned")))
		}, []string{"forked: cosigned"}},
		"written anew without what was cosigned": {func(t *testing.T, l sample) {
			must(t, os.RemoveAll(l.dir))
			must(t, Create(l.dir, l.key))
			grow(t, open(t, l.dir, l.key), 600)
		}, []string{"unvouched: "}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSample(t)
			test.tamper(t, l)
			var got []string
			for _, f := range verify(t, l.dir, l.p).Findings {
				got = append(got, string(f.Verdict)+": "+f.Path)
			}
			slices.Sort(got)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
}
