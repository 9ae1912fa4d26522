package translog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// A check holds the tiles of a log against a checkpoint.
type check struct {
	*Verification
	dir  string
	head tlog.Tree
	mark *tlog.Tree // another tree that the log has to begin with, of at most the head's size
	lost map[int64]bool
}

// A strand is the tree that one kind of file makes: the bundles of leaves, or the hashes of level 0. A log has
// both, so what was altered can be named: it is the one that does not make the checkpoint's root.
type strand struct {
	tree
	above  []tile    // the full tiles above level 0
	atMark tlog.Hash // its root at the size of the mark
}

func (s *strand) extend(hashes []byte, mark *tlog.Tree) {
	for ; len(hashes) > 0; hashes = hashes[tlog.HashSize:] {
		if mark != nil && s.size == mark.N {
			s.atMark = s.root()
		}
		s.add(tlog.Hash(hashes), func(t tlog.Tile, b []byte) {
			if t.L > 0 {
				s.above = append(s.above, tile{t, b})
			}
		})
	}
}

// tiles reads all tiles, then gives the leaves of those bundles that are sound to visit.
func (c *check) tiles(visit func(int64, Leaf)) error {
	var leaves, hashes strand
	var differ []tlog.Tile // bundles and hashes that are not of each other
	for n := int64(0); n < c.head.N; n += width {
		t := tlog.Tile{H: height, L: 0, N: n / width, W: int(min(width, c.head.N-n))}
		h, err := c.read(t)
		if err != nil {
			return err
		}
		t.L = entries
		b, err := c.read(t)
		if err != nil {
			return err
		}
		of := h
		if b != nil && checkBundle(b, t.W) != nil {
			c.find(Altered, torchwood.TilePath(t), "it is no bundle of %d leaves", t.W)
			b = nil
		}
		if b == nil {
			c.lost[t.N] = true
		} else if of = hashesOf(b); h == nil {
			h = of
		}
		if h == nil { // neither is of use, and their names were found
			h = make([]byte, t.W*tlog.HashSize)
			of = h
		}
		if !bytes.Equal(of, h) {
			differ = append(differ, t)
		}
		leaves.extend(of, c.mark)
		hashes.extend(h, c.mark)
	}
	if err := c.judge(&leaves, &hashes, differ); err != nil || visit == nil {
		return err
	}
	return c.visit(visit)
}

// judge names what does not make the checkpoint's root.
func (c *check) judge(leaves, hashes *strand, differ []tlog.Tile) error {
	right := leaves
	switch c.head.Hash {
	case leaves.root():
		for _, t := range differ {
			t.L = 0
			c.find(Altered, torchwood.TilePath(t), "its leaves have other hashes")
		}
	case hashes.root():
		right = hashes
		for _, t := range differ {
			c.lost[t.N] = true
			c.find(Altered, torchwood.TilePath(t), "its leaves are not those of the tree")
		}
	default:
		if len(differ) == 0 && len(c.lost) == 0 {
			c.find(Altered, checkpointName, "the tiles make another tree than it says")
		}
		for _, t := range differ {
			name := torchwood.TilePath(t)
			t.L = 0
			c.find(Altered, name, "it is not of %s, and neither makes the tree of the checkpoint", torchwood.TilePath(t))
		}
		return nil
	}
	if c.mark != nil {
		if c.mark.N == c.head.N {
			right.atMark = c.head.Hash
		}
		if right.atMark != c.mark.Hash {
			c.find(Forked, cosignedName, "the log does not begin with the %d leaves that it is over", c.mark.N)
		}
	}
	for level := 1; level < len(right.edge); level++ {
		if w := len(right.edge[level]) / tlog.HashSize; w > 0 {
			t := tlog.Tile{H: height, L: level, N: c.head.N >> (height * (level + 1)), W: w}
			right.above = append(right.above, tile{t, right.edge[level]})
		}
	}
	for _, t := range right.above {
		b, err := c.read(t.Tile)
		if err != nil {
			return err
		}
		if b != nil && !bytes.Equal(b, t.data) {
			c.find(Altered, torchwood.TilePath(t.Tile), "it has other hashes than the tiles below it")
		}
	}
	return nil
}

// visit gives the leaves to f, in their order.
func (c *check) visit(f func(int64, Leaf)) error {
	for n := int64(0); n < c.head.N; n += width {
		if c.lost[n/width] {
			continue
		}
		t := tlog.Tile{H: height, L: entries, N: n / width, W: int(min(width, c.head.N-n))}
		b, err := readTile(c.dir, t)
		if err != nil {
			return err
		}
		leaves, err := parseBundle(b, t.W)
		if err != nil {
			return err
		}
		for i, l := range leaves {
			f(n+int64(i), l)
		}
	}
	return nil
}

// read reads a tile. It returns nil, and has a finding, where there is none of its size.
func (c *check) read(t tlog.Tile) ([]byte, error) {
	b, err := readTile(c.dir, t)
	switch name := torchwood.TilePath(t); {
	case errors.Is(err, fs.ErrNotExist):
		c.find(Removed, name, "the tree of the checkpoint has it")
	case errors.Is(err, errContent):
		c.find(Altered, name, "%v", err)
	case err != nil:
		return nil, err
	default:
		return b, nil
	}
	return nil, nil
}

// Find gives the numbers and times of the leaves with a locator hash, in order: of records that are there, expired or
// removed. It trusts the files; [Verify] does not.
func Find(dir string, locator [32]byte, found func(n int64, at time.Time)) error {
	b, err := readBounded(filepath.Join(dir, checkpointName), maxCheckpoint)
	if err != nil {
		return fmt.Errorf("search log: %w", err)
	}
	text, _, _ := strings.Cut(string(b), "\n\n")
	head, err := torchwood.ParseCheckpoint(text + "\n")
	if err != nil {
		return fmt.Errorf("search log: %w", err)
	}
	c := check{dir: dir, head: head.Tree}
	err = c.visit(func(n int64, l Leaf) {
		if l.Locator == locator {
			found(n, l.Time)
		}
	})
	if err != nil {
		return fmt.Errorf("search log: %w", err)
	}
	return nil
}
