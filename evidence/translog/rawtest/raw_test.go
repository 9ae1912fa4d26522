// Package rawtest holds the files of a log against the documents that describe them, with the packages of the
// Go project alone. It imports nothing of this module.
package rawtest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// write has another process write a log, and returns its directory, beside which are the public keys of the log
// and of a witness.
func write(t *testing.T, sizes string) string {
	t.Helper()
	dir := t.TempDir()
	write := exec.Command("go", "test", "-count=1", "-run", "^TestWriteSample$", "..")
	write.Env = append(os.Environ(), "STOPD_SAMPLE_DIR="+dir, "STOPD_SAMPLE_SIZES="+sizes)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func TestRawFiles(t *testing.T) {
	for _, sizes := range []string{"1", "255", "256", "3,300", "257,513", "100,65536,66049"} {
		dir := write(t, sizes)
		n, err := verify(dir)
		if err != nil {
			t.Errorf("sizes %s: %v", sizes, err)
		}
		if want := sizes[strings.LastIndex(sizes, ",")+1:]; strconv.FormatInt(n, 10) != want {
			t.Errorf("sizes %s: %d leaves", sizes, n)
		}
	}
}

// What is verified is every octet: a flipped one anywhere fails.
func TestRawFilesFlipped(t *testing.T) {
	dir := write(t, "3,300")
	flipped := 0
	err := filepath.WalkDir(filepath.Join(dir, "log"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "cosigned" {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 0; i < len(good); i += 1 + len(good)/97 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 4
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				return err
			}
			if _, err := verify(dir); err == nil {
				t.Errorf("%s: octet %d flipped, and it verifies", path, i)
			}
			flipped++
		}
		return os.WriteFile(path, good, 0o600)
	})
	if err != nil || flipped < 400 {
		t.Errorf("%v, %d octets flipped", err, flipped)
	}
}

// verify reads a log: checkpoint, tiles and leaves. It returns its size.
func verify(dir string) (int64, error) {
	log := filepath.Join(dir, "log")
	tree, err := checkpoint(filepath.Join(log, "checkpoint"), filepath.Join(dir, "log.pub"), filepath.Join(dir, "witness.pub"))
	if err != nil {
		return 0, err
	}
	hashes := tlog.TileHashReader(tree, tiles(log))
	for n := int64(0); n < tree.N; {
		bundle, err := os.ReadFile(filepath.Join(log, path("entries", n/256, min(256, tree.N-n))))
		if err != nil {
			return 0, err
		}
		var want []int64
		var got []tlog.Hash
		for ; len(bundle) > 0; n++ {
			length := 0
			if len(bundle) >= 2 {
				length = int(binary.BigEndian.Uint16(bundle))
			}
			if length != 72 || len(bundle) < 2+length {
				return 0, fmt.Errorf("leaf %d has %d octets", n, length)
			}
			want, got = append(want, tlog.StoredHashIndex(0, n)), append(got, tlog.RecordHash(bundle[2:2+length]))
			bundle = bundle[2+length:]
		}
		have, err := hashes.ReadHashes(want)
		if err != nil {
			return 0, err
		}
		for i := range have {
			if have[i] != got[i] {
				return 0, fmt.Errorf("leaf %d is not in the tree", n)
			}
		}
	}
	// Tiles that hold only hashes of tiles are read on the way where a leaf needs them; read them all.
	for _, t := range tlog.NewTiles(8, 0, tree.N) {
		got, err := tlog.ReadTileData(t, hashes)
		if err != nil {
			return 0, err
		}
		onDisk, err := tiles(log).ReadTiles([]tlog.Tile{t})
		if err != nil || string(onDisk[0]) != string(got) {
			return 0, fmt.Errorf("tile %v: %v", t, err)
		}
	}
	return tree.N, nil
}

// checkpoint reads one of c2sp.org/tlog-checkpoint that the log signed and the witness cosigned.
func checkpoint(file, logKey, witnessKey string) (tlog.Tree, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return tlog.Tree{}, err
	}
	key, err := os.ReadFile(logKey)
	if err != nil {
		return tlog.Tree{}, err
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return tlog.Tree{}, err
	}
	w, err := newWitness(witnessKey)
	if err != nil {
		return tlog.Tree{}, err
	}
	n, err := note.Open(b, note.VerifierList(v, w))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(n.Sigs) != 2 || len(n.UnverifiedSigs) != 0 || len(lines) != 4 || lines[0] != v.Name() || lines[3] != "" {
		return tlog.Tree{}, errors.New("no checkpoint of this log and witness")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// tiles reads the tiles of c2sp.org/tlog-tiles in a directory.
type tiles string

func (tiles) Height() int                     { return 8 }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (dir tiles) ReadTiles(ts []tlog.Tile) (data [][]byte, err error) {
	for _, t := range ts {
		b, err := os.ReadFile(filepath.Join(string(dir), path(strconv.Itoa(t.L), t.N, int64(t.W))))
		if err != nil {
			return nil, err
		}
		data = append(data, b)
	}
	return data, nil
}

func path(level string, n, w int64) string {
	p := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		p = fmt.Sprintf("x%03d/%s", n%1000, p)
	}
	if w < 256 {
		p += fmt.Sprintf(".p/%d", w)
	}
	return "tile/" + level + "/" + p
}

// witness checks Ed25519 cosignatures of c2sp.org/tlog-cosignature.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(file string) (witness, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return witness{}, err
	}
	f := strings.SplitN(strings.TrimSpace(string(b)), "+", 3)
	if len(f) != 3 {
		return witness{}, errors.New("no verifier key")
	}
	key, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return witness{}, fmt.Errorf("no key of a cosigner: %v", err)
	}
	sum := sha256.Sum256([]byte(f[0] + "\n" + string(key)))
	return witness{f[0], binary.BigEndian.Uint32(sum[:]), key[1:]}, nil
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }
func (w witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(w.key, []byte(signed), sig[8:])
}
