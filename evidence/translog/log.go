package translog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrAltered says that the log on disk is not one that this program leaves behind.
var ErrAltered = errors.New("log altered")

// ErrUnproven says that the tiles on disk do not make the tree of the checkpoint.
var ErrUnproven = errors.New("log proves nothing")

// A Log is written by one program at a time; the caller sees to that. Its methods may be called at once.
type Log struct {
	dir string
	key Key

	mu      sync.Mutex
	tree    tree   // of the leaves known
	bundle  []byte // the last bundle of leaves, which is not full
	pending []tile // full tiles that are not on disk
	most    int    // maxPending
	head    Signed // newest checkpoint
	// witnessed is the size of what each witness cosigned last, by its key.
	witnessed map[string]int64

	many   chan struct{} // filled where many tiles wait
	follow func(n int64, leaf tlog.Hash)

	// writing is held while files are written. It is taken before mu.
	writing sync.Mutex
}

// A tile with its content.
type tile struct {
	tlog.Tile
	data []byte
}

const (
	// manyPending is how many full tiles, 128 leaves each, wait before Run signs early.
	manyPending = 1024
	// maxPending is how many are kept in memory, 13.5 KiB each: where nobody signs, Append writes them.
	maxPending = 8192
)

// Create makes an empty log with a signed checkpoint, in a directory that is not there.
func Create(dir string, key Key) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	l := &Log{dir: dir, key: key, most: maxPending, many: make(chan struct{}, 1), witnessed: map[string]int64{}}
	if err := l.Checkpoint(); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// Open opens a log to append to, at its newest checkpoint. What a crash left behind that is removed: it is not
// signed, and is written again when the caller appends the leaves from [Log.Size] on. A log without a
// checkpoint, or that does not have the checkpoint's tree, is [ErrAltered], and is not changed.
func Open(dir string, key Key) (*Log, error) {
	head, err := ReadSigned(filepath.Join(dir, checkpointName), key)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{dir: dir, key: key, tree: tree{size: head.N}, head: head,
		most: maxPending, many: make(chan struct{}, 1), witnessed: map[string]int64{}}
	for _, t := range edgeOf(head.N) {
		b, err := readTile(dir, t)
		if err != nil {
			return nil, fmt.Errorf("open log: %w: %w", ErrAltered, err)
		}
		if t.L == entries {
			if l.bundle, err = b, checkBundle(b, t.W); err != nil {
				return nil, fmt.Errorf("open log: %w: %s: %w", ErrAltered, torchwood.TilePath(t), err)
			}
			continue
		}
		for len(l.tree.edge) <= t.L {
			l.tree.edge = append(l.tree.edge, nil)
		}
		l.tree.edge[t.L] = b
	}
	if l.tree.root() != head.Hash {
		return nil, fmt.Errorf("open log: %w: the last tiles do not have the checkpoint's root", ErrAltered)
	}
	if len(l.tree.edge) > 0 && !bytes.Equal(l.tree.edge[0], hashesOf(l.bundle)) {
		return nil, fmt.Errorf("open log: %w: the last leaves do not have the hashes of the last tile", ErrAltered)
	}
	if err := l.checkCosigned(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := l.sweep(head.N); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// checkCosigned sees to it that the log begins with the tree that witnesses cosigned last.
func (l *Log) checkCosigned() error {
	path := filepath.Join(l.dir, cosignedName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c, err := ReadSigned(path, l.key)
	if err != nil {
		return err
	}
	if c.N > l.head.N {
		return fmt.Errorf("%w: the checkpoint has %d leaves, and witnesses cosigned %d", ErrAltered, l.head.N, c.N)
	}
	if t, err := TreeAt(l.dir, l.head.Tree, c.N); err != nil || t != c.Tree {
		return fmt.Errorf("%w: the log does not begin with the tree of size %d that witnesses cosigned", ErrAltered, c.N)
	}
	return nil
}

func checkBundle(b []byte, n int) error {
	_, err := parseBundle(b, n)
	return err
}

// sweep removes the files that a tree of this size does not have.
func (l *Log) sweep(size int64) error {
	have := map[string]bool{checkpointName: true, cosignedName: true}
	for _, t := range edgeOf(size) {
		have[torchwood.TilePath(t)] = true
	}
	return filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(l.dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if t, err := torchwood.ParseTilePath(name); have[name] || err == nil && t.W == width && within(t, size) {
			return nil
		} else if err != nil && !strings.HasSuffix(name, tempSuffix) {
			return nil // not ours to remove: an audit names it
		}
		return os.Remove(path)
	})
}

// within reports whether a full tile is one of a tree of this size.
func within(t tlog.Tile, size int64) bool {
	return t.N < size>>(height*(max(t.L, 0)+1))
}

// Size is how many leaves the log has, those that no checkpoint covers yet among them.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.size
}

// LastDigest is the SHA-256, in hexadecimal, of the newest checkpoint's text without its signatures.
func (l *Log) LastDigest() string {
	return l.Head().Digest()
}

// Head is the newest checkpoint.
func (l *Log) Head() Signed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Follow has f called with the number and the hash of each leaf that is appended from now on, in their order. It is not to
// wait, nor to call the log.
func (l *Log) Follow(f func(n int64, leaf tlog.Hash)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follow = f
}

// Append appends leaves of records that are durable, since a checkpoint may cover them at once. They are kept
// in memory until then; only where very many wait, because nobody signs, it writes full tiles itself.
func (l *Log) Append(leaves []Leaf) error {
	l.mu.Lock()
	for _, leaf := range leaves {
		b := leaf.Append(make([]byte, 0, LeafSize))
		l.bundle, _ = torchwood.AppendTileEntry(l.bundle, b) // it fails for more than 64 KiB
		h := tlog.RecordHash(b)
		if l.follow != nil {
			l.follow(l.tree.size, h)
		}
		l.tree.add(h, l.full)
	}
	waiting := len(l.pending)
	l.mu.Unlock()
	if waiting >= manyPending {
		select {
		case l.many <- struct{}{}:
		default:
		}
	}
	if waiting <= l.most {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.flush(); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// full takes a tile that is full. Its leaves, if it is of level 0, are in the bundle.
func (l *Log) full(t tlog.Tile, hashes []byte) {
	l.pending = append(l.pending, tile{t, hashes})
	if t.L == 0 {
		t.L = entries
		l.pending = append(l.pending, tile{t, l.bundle})
		l.bundle = nil
	}
}

// partial returns the last tiles as they are.
func (l *Log) partial() []tile {
	var tiles []tile
	for _, t := range edgeOf(l.tree.size) {
		data := l.bundle
		if t.L != entries {
			data = l.tree.edge[t.L]
		}
		tiles = append(tiles, tile{t, slices.Clone(data)})
	}
	return tiles
}

// Checkpoint makes everything that was appended durable, signs it, and replaces DIR/checkpoint. If it fails,
// the checkpoint before it holds, and the next call does all of it again.
func (l *Log) Checkpoint() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	tree := tlog.Tree{N: l.tree.size, Hash: l.tree.root()}
	last := l.partial()
	before := l.head
	l.mu.Unlock()
	if before.text != "" && before.N == tree.N {
		return nil
	}
	// Tiles that fill up from now on are of the next checkpoint; that they are written as well does no harm.
	if err := l.flush(); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if err := writeTiles(l.dir, last); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	head, err := l.key.sign(tree)
	if err != nil {
		return fmt.Errorf("sign checkpoint: %w", err)
	}
	if err := replaceFile(filepath.Join(l.dir, checkpointName), head.note); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	return l.drop(before.N, tree.N)
}

// flush writes the full tiles that are waiting. The caller holds writing.
func (l *Log) flush() error {
	l.mu.Lock()
	full := slices.Clone(l.pending)
	l.mu.Unlock()
	if err := writeTiles(l.dir, full); err != nil {
		return err
	}
	l.mu.Lock()
	l.pending = slices.Delete(l.pending, 0, len(full)) // others append behind
	l.mu.Unlock()
	return nil
}

// drop removes the partial tiles of the checkpoint before.
func (l *Log) drop(before, now int64) error {
	keep := edgeOf(now)
	for _, t := range edgeOf(before) {
		if slices.Contains(keep, t) {
			continue
		}
		path := filepath.Join(l.dir, filepath.FromSlash(torchwood.TilePath(t)))
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove partial tile: %w", err)
		}
		os.Remove(filepath.Dir(path)) // where it is empty: the tile is full
	}
	return nil
}

// A Signed is a signed checkpoint.
type Signed struct {
	torchwood.Checkpoint
	text string // what is signed
	note []byte // the whole, with signatures
}

// Digest is the SHA-256, in hexadecimal, of the text that is signed: origin, size and root, a line each.
func (s Signed) Digest() string {
	sum := sha256.Sum256([]byte(s.text))
	return hex.EncodeToString(sum[:])
}

// Note is the checkpoint with its signatures, as it is on disk.
func (s Signed) Note() []byte { return slices.Clone(s.note) }

func (k Key) sign(tree tlog.Tree) (Signed, error) {
	c := torchwood.Checkpoint{Origin: k.Origin(), Tree: tree}
	n, err := note.Sign(&note.Note{Text: c.String()}, k.signer)
	if err != nil {
		return Signed{}, err
	}
	return Signed{c, c.String(), n}, nil
}

// maxCheckpoint bounds a checkpoint with its signatures: 16 of the largest that c2sp.org/signed-note expects.
const maxCheckpoint = 128 << 10

// ReadSigned reads a checkpoint that the log's key signed. Another is [ErrAltered].
func ReadSigned(path string, key Key) (Signed, error) {
	b, err := readBounded(path, maxCheckpoint)
	if err != nil {
		return Signed{}, fmt.Errorf("read checkpoint: %w: %w", ErrAltered, err)
	}
	s, _, err := key.policy().open(b)
	if err != nil {
		return Signed{}, fmt.Errorf("read checkpoint %s: %w", path, err)
	}
	return s, nil
}
