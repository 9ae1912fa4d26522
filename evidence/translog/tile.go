package translog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = torchwood.TileHeight
	width  = torchwood.TileWidth
)

// entries is the level of a bundle of leaves, as torchwood.TilePath has it.
const entries = -1

// unit is how many octets one element of a tile of this level takes.
func unit(level int) int {
	if level == entries {
		return bundled
	}
	return tlog.HashSize
}

// edgeOf lists the partial tiles of a tree of this size.
func edgeOf(size int64) []tlog.Tile {
	var tiles []tlog.Tile
	for level := 0; size>>(height*level) > 0; level++ {
		n := size >> (height * level)
		if w := int(n % width); w > 0 {
			tiles = append(tiles, tlog.Tile{H: height, L: level, N: n / width, W: w})
			if level == 0 {
				tiles = append(tiles, tlog.Tile{H: height, L: entries, N: n / width, W: w})
			}
		}
	}
	return tiles
}

// readTile reads a tile. A writer may have replaced a partial one by a wider one, which begins with it.
func readTile(dir string, t tlog.Tile) ([]byte, error) {
	want := t.W * unit(t.L)
	full := t
	full.W = width
	base := filepath.Join(dir, filepath.FromSlash(torchwood.TilePath(full)))
	for try := 0; ; try++ {
		b, err := readBounded(filepath.Join(dir, filepath.FromSlash(torchwood.TilePath(t))), want)
		if errors.Is(err, fs.ErrNotExist) && t.W < width {
			b, err = readWider(base, t.W, unit(t.L))
		}
		if errors.Is(err, fs.ErrNotExist) && t.W < width && try < 10 {
			continue // it was replaced between two looks
		}
		if err != nil {
			return nil, err
		}
		if len(b) < want {
			return nil, fmt.Errorf("read tile %s: %w: %d octets, not %d", torchwood.TilePath(t), errContent, len(b), want)
		}
		return b[:want], nil
	}
}

// readWider reads a tile that is wider than w: the whole one, or a partial one.
func readWider(base string, w, unit int) ([]byte, error) {
	b, err := readBounded(base, width*unit)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	partial, err := os.ReadDir(base + ".p")
	if err != nil {
		return nil, err
	}
	for _, f := range partial {
		if n, err := strconv.Atoi(f.Name()); err == nil && n > w && n < width {
			return readBounded(filepath.Join(base+".p", f.Name()), n*unit)
		}
	}
	return nil, fs.ErrNotExist
}

// errContent says that a file is there, and not what it has to be.
var errContent = errors.New("wrong file")

// ErrIrregular says that something else is where a file has to be.
var ErrIrregular = errors.New("no regular file")

// OpenRegular is [os.OpenFile] for a file that has to be a regular one, else the error is [ErrIrregular]: the opening of a FIFO would
// wait for ever, and a device may do something.
func OpenRegular(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w: %w", path, errContent, ErrIrregular)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readBounded reads a regular file of at most so many octets.
func readBounded(path string, most int) ([]byte, error) {
	f, err := OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		return nil, fmt.Errorf("read %s: %w: more than %d octets", path, errContent, most)
	}
	return b, nil
}

// tileReader reads tiles for [tlog.TileHashReader], which checks them against the tree.
type tileReader string

func (dir tileReader) Height() int                     { return height }
func (dir tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (dir tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		if data[i], err = readTile(string(dir), t); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// Consistency proves that the tree begins with the one of old leaves; CheckTree of package tlog checks it.
func Consistency(dir string, tree tlog.Tree, old int64) (tlog.TreeProof, error) {
	if old == 0 || old == tree.N {
		return nil, nil
	}
	p, err := tlog.ProveTree(tree.N, old, tlog.TileHashReader(tree, tileReader(dir)))
	if err != nil {
		return nil, fmt.Errorf("prove consistency with size %d: %w", old, err)
	}
	return p, nil
}

// TreeAt is the tree of the first n leaves of a larger one.
func TreeAt(dir string, tree tlog.Tree, n int64) (tlog.Tree, error) {
	if n < 0 || n > tree.N {
		return tlog.Tree{}, fmt.Errorf("find tree of size %d: the log has %d leaves", n, tree.N)
	}
	h, err := tlog.TreeHash(n, tlog.TileHashReader(tree, tileReader(dir)))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("find tree of size %d: %w", n, err)
	}
	return tlog.Tree{N: n, Hash: h}, nil
}

// LeafHashes are the hashes of leaves of a tree, checked against it.
func LeafHashes(dir string, tree tlog.Tree, leaves []int64) ([]tlog.Hash, error) {
	at := make([]int64, len(leaves))
	for i, n := range leaves {
		if n < 0 || n >= tree.N {
			return nil, fmt.Errorf("find leaf %d: the log has %d leaves", n, tree.N)
		}
		at[i] = tlog.StoredHashIndex(0, n)
	}
	hs, err := tlog.TileHashReader(tree, tileReader(dir)).ReadHashes(at)
	if err != nil {
		return nil, fmt.Errorf("find leaves: %w", err)
	}
	return hs, nil
}
