package translog

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// A tree is the right edge of a Merkle tree: enough to add leaves, and to know its root.
type tree struct {
	size int64
	edge [][]byte // of each level, the last tile, which is not full
}

// add adds the hash of a leaf, and gives the tiles that it fills to full.
func (t *tree) add(leaf tlog.Hash, full func(tlog.Tile, []byte)) {
	n := t.size
	t.size++
	for level, h := 0, leaf; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, nil)
		}
		hashes := append(t.edge[level], h[:]...)
		if t.edge[level] = hashes; len(hashes) < width*tlog.HashSize {
			return
		}
		t.edge[level] = nil
		full(tlog.Tile{H: height, L: level, N: n >> (height * (level + 1)), W: width}, hashes)
		h = subtree(hashes)
	}
}

// root is the root of the tree.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil) // RFC 6962, 2.1
	}
	var root tlog.Hash
	seen := false
	for _, hashes := range t.edge { // from the right edge of the tree to the left
		for end := len(hashes) / tlog.HashSize; end > 0; {
			n := end & -end // the subtree at the end is as wide as the lowest bit
			h := subtree(hashes[(end-n)*tlog.HashSize : end*tlog.HashSize])
			if seen {
				h = tlog.NodeHash(h, root)
			}
			root, seen = h, true
			end -= n
		}
	}
	return root
}

// subtree is the hash over a power of two of hashes, 32 octets each.
func subtree(b []byte) tlog.Hash {
	if len(b) == tlog.HashSize {
		return tlog.Hash(b)
	}
	half := len(b) / 2
	return tlog.NodeHash(subtree(b[:half]), subtree(b[half:]))
}
