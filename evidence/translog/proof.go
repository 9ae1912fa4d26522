package translog

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Prover proves leaves under the checkpoints of one moment. It remembers what it read.
type Prover struct {
	heads []Signed // what is cosigned first
	tiles tileCache
}

// Prover proves leaves as the log is now. An error of the file of the cosigned checkpoint wraps [ErrAltered]; the prover is there all the
// same, and goes by the newest checkpoint.
func (l *Log) Prover() (*Prover, error) {
	p := &Prover{tiles: tileCache{tileReader(l.dir), map[tlog.Tile][]byte{}}}
	cosigned, err := ReadSigned(filepath.Join(l.dir, cosignedName), l.key)
	switch {
	case err == nil:
		p.heads = append(p.heads, cosigned)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	p.heads = append(p.heads, l.Head())
	return p, err
}

// Prove gives a c2sp.org/tlog-proof that leaf n is this one, with the leaf as its extra data: under the checkpoint that
// a quorum cosigned, where that covers it, else under the newest. It is nil for a leaf that neither covers. Where the log has another leaf
// the error is [ErrAltered], where the tiles prove nothing [ErrUnproven].
func (p *Prover) Prove(n int64, leaf Leaf) ([]byte, error) {
	i := slices.IndexFunc(p.heads, func(h Signed) bool { return n < h.N })
	if i < 0 {
		return nil, nil
	}
	head := p.heads[i]
	hashes, err := tlog.ProveRecord(head.N, n, tlog.TileHashReader(head.Tree, p.tiles))
	if cause := (*fs.PathError)(nil); errors.As(err, &cause) && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("prove leaf %d: %w", n, err) // the disk's failure says nothing of the log
	}
	if err != nil {
		return nil, fmt.Errorf("prove leaf %d: %w: %w", n, ErrUnproven, err)
	}
	if tlog.CheckRecord(hashes, head.N, head.Hash, n, tlog.RecordHash(leaf.Append(nil))) != nil {
		return nil, fmt.Errorf("prove leaf %d: %w: it is another", n, ErrAltered)
	}
	return torchwood.FormatProofWithExtraData(n, leaf.Append(nil), hashes, head.note), nil
}

// A tileCache reads each tile once.
type tileCache struct {
	tileReader
	read map[tlog.Tile][]byte
}

func (c tileCache) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		if c.read[t] == nil {
			b, err := readTile(string(c.tileReader), t)
			if err != nil {
				return nil, err
			}
			c.read[t] = b
		}
		data[i] = c.read[t]
	}
	return data, nil
}

// A Proof is that of one leaf.
type Proof struct {
	Leaf  Leaf
	Index int64
	// Checkpoint is what the leaf is in. Who signed it is for a [Policy] to say.
	Checkpoint torchwood.Checkpoint
	hashes     tlog.RecordProof
	note       []byte
}

// ParseProof parses what [Log.Prove] made, in that one form, and checks that the leaf is in the checkpoint's tree.
func ParseProof(b []byte) (Proof, error) {
	p, err := parseProof(b)
	if err != nil {
		return Proof{}, fmt.Errorf("parse proof: %w", err)
	}
	return p, nil
}

const maxHashes = 63 // a tree has at most 2^63 leaves

func parseProof(b []byte) (p Proof, err error) {
	extra, err := torchwood.ProofExtraData(b)
	if err != nil {
		return p, err
	}
	if p.Leaf, err = ParseLeaf(extra); err != nil {
		return p, err
	}
	head, signed, ok := bytes.Cut(b, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 3 || len(lines) > 3+maxHashes {
		return p, errors.New("it has not the lines of a proof")
	}
	index, _ := strings.CutPrefix(lines[2], "index ")
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil || p.Index < 0 {
		return p, fmt.Errorf("index %q", index)
	}
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return p, fmt.Errorf("hash %q", line)
		}
		p.hashes = append(p.hashes, tlog.Hash(h))
	}
	if len(signed) > maxCheckpoint {
		return p, fmt.Errorf("a checkpoint of more than %d octets", maxCheckpoint)
	}
	p.note = slices.Clone(signed)
	if !bytes.Equal(torchwood.FormatProofWithExtraData(p.Index, extra, p.hashes, p.note), b) {
		return p, errors.New("it is not written as a proof is written")
	}
	n, again, err := spelled(signed)
	if err == nil && !bytes.Equal(again, signed) {
		err = errors.New("its checkpoint is not written as a log writes it")
	}
	if err != nil {
		return p, err
	}
	if p.Checkpoint, err = torchwood.ParseCheckpoint(n.Text); err != nil {
		return p, err
	}
	if err := tlog.CheckRecord(p.hashes, p.Checkpoint.N, p.Checkpoint.Hash, p.Index, tlog.RecordHash(extra)); err != nil {
		return p, fmt.Errorf("the leaf is not in the tree of the checkpoint: %w", err)
	}
	return p, nil
}

// A Standing is what the signatures on a proof's checkpoint are worth under a policy.
type Standing struct {
	Cosignatures []Cosignature // of witnesses of the policy, in order of time
	// Met tells that they are what the policy asks for. By is then when enough of the witnesses had signed, by their
	// clocks: the checkpoint is not younger. It is zero where the policy asks for no witness.
	Met bool
	By  time.Time
}

// Weigh checks the signatures on a proof's checkpoint. One that the log did not sign, or with a wrong signature
// of a known key, is [ErrAltered].
func (p Policy) Weigh(proof Proof) (Standing, error) {
	_, sigs, err := p.open(proof.note)
	if err != nil {
		return Standing{}, fmt.Errorf("check signatures of a proof: %w", err)
	}
	var s Standing
	var own, others []note.Signature
	for _, sig := range sigs {
		if sig.Name == p.log.Name() && sig.Hash == p.log.KeyHash() {
			own = append(own, sig)
			continue
		}
		at, err := torchwood.CosignatureTimestamp(sig)
		if err != nil || at <= 0 {
			return Standing{}, fmt.Errorf("check signatures of a proof: %w: the cosignature of %s has no time", ErrAltered, sig.Name)
		}
		others = append(others, sig)
		s.Cosignatures = append(s.Cosignatures, Cosignature{sig.Name, proof.Checkpoint.N, time.Unix(at, 0).UTC()})
	}
	if s.Met = p.met(sigs); !s.Met {
		return s, nil
	}
	// In order of time, as many as are enough.
	at := func(i int) time.Time { return s.Cosignatures[i].Time }
	order := make([]int, len(others))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return at(i).Compare(at(j)) })
	enough := slices.Clone(own)
	for _, i := range order {
		if p.met(enough) {
			break
		}
		enough, s.By = append(enough, others[i]), at(i)
	}
	slices.SortStableFunc(s.Cosignatures, func(a, b Cosignature) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Witness, b.Witness)) })
	return s, nil
}
