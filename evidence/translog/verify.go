package translog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
)

// A Verdict names what is wrong with a file.
type Verdict string

// The verdicts on files of a log. A store has more of its own.
const (
	Altered    Verdict = "altered"     // it is not what it was
	Removed    Verdict = "removed"     // it has to be there, and is not
	Foreign    Verdict = "foreign"     // it is no file of a log
	Uncovered  Verdict = "uncovered"   // no checkpoint covers it, and nobody is writing
	RolledBack Verdict = "rolled back" // it was longer
	Forked     Verdict = "forked"      // somebody saw another log under its name
	Unvouched  Verdict = "unvouched"   // the policy asks for witnesses, and has too few
)

// A Finding is one thing that is wrong.
type Finding struct {
	Verdict Verdict
	Path    string // below the log's directory, with slashes; empty where it is of no one file
	Detail  string
}

func (f Finding) String() string {
	if f.Path == "" {
		return fmt.Sprintf("%s: %s", f.Verdict, f.Detail)
	}
	return fmt.Sprintf("%s: %s: %s", f.Verdict, f.Path, f.Detail)
}

// A Cosignature is a witness's word that it saw a log at this size, and what was before it unchanged.
type Cosignature struct {
	Witness string
	Size    int64
	Time    time.Time // by the witness's clock, to the second
}

// A Verification is what a log was found to be.
type Verification struct {
	Findings []Finding
	Head     Signed // the checkpoint that it was held against: the newest that is of use; zero where there is none
	// Cosigned is the largest size that the cosignatures in the files meet the policy for: -1 where there is
	// none. Where the policy asks for no witness it is that of the head.
	Cosigned     int64
	Cosignatures []Cosignature // of the newest checkpoint and the cosigned one, of witnesses of the policy
}

func (v *Verification) find(what Verdict, path, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{what, path, fmt.Sprintf(format, args...)})
}

// Verify reads every file of a log. Leaves that are in the checkpoint's tree are given to visit in their order.
// Where somebody is writing, what no checkpoint covers yet is nothing wrong. It fails only where it cannot read.
func Verify(dir string, p Policy, writing bool, visit func(n int64, l Leaf)) (*Verification, error) {
	v := &Verification{Cosigned: -1}
	// In this order: who writes makes the checkpoint first, so it is never the smaller one.
	cosigned, err := v.checkpoint(dir, cosignedName, p)
	if err != nil {
		return nil, fmt.Errorf("verify log: %w", err)
	}
	head, err := v.checkpoint(dir, checkpointName, p)
	if err == nil && head != nil && head.met && cosigned == nil && len(v.Findings) == 0 {
		cosigned, err = v.checkpoint(dir, cosignedName, p) // it may have come in between
	}
	if err != nil {
		return nil, fmt.Errorf("verify log: %w", err)
	}
	best := head // what is verified: the cosigned checkpoint, where the newest is of no use
	if best == nil {
		best = cosigned
	}
	if best != nil {
		v.Head = best.Signed
		c := check{Verification: v, dir: dir, head: best.Tree, lost: map[int64]bool{}}
		if cosigned != nil && cosigned.N <= best.N {
			c.mark = &cosigned.Tree
		}
		if err := c.tiles(visit); err != nil {
			return nil, fmt.Errorf("verify log: %w", err)
		}
	}
	v.vouched(p, head, cosigned)
	if err := v.others(dir, writing || head == nil); err != nil {
		return nil, fmt.Errorf("verify log: %w", err)
	}
	return v, nil
}

// A cosignedHead is a checkpoint of which the signatures are verified.
type cosignedHead struct {
	Signed
	met bool // the policy is
}

// checkpoint reads DIR/name. It returns nil where it is not there or of no use.
func (v *Verification) checkpoint(dir, name string, p Policy) (*cosignedHead, error) {
	b, err := readBounded(filepath.Join(dir, name), maxCheckpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == cosignedName:
		return nil, nil // vouched has a word on it
	case errors.Is(err, fs.ErrNotExist):
		v.find(Removed, name, "a log has one from its first moment")
		return nil, nil
	case errors.Is(err, errContent):
		v.find(Altered, name, "%v", err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	s, sigs, err := p.open(b)
	if err != nil {
		v.find(Altered, name, "%v", err)
		return nil, nil
	}
	v.spelling(name, b, sigs)
	for _, sig := range sigs {
		if sig.Name == p.log.Name() && sig.Hash == p.log.KeyHash() {
			continue
		}
		at, err := torchwood.CosignatureTimestamp(sig)
		if err != nil {
			v.find(Altered, name, "the cosignature of %s has no time", sig.Name)
			continue
		}
		v.Cosignatures = append(v.Cosignatures, Cosignature{sig.Name, s.N, time.Unix(at, 0).UTC()})
	}
	return &cosignedHead{s, p.met(sigs)}, nil
}

// spelling sees to it that a note is written the one way that it is written by a log: not every octet of it is
// under its signatures.
func (v *Verification) spelling(name string, b []byte, sigs []note.Signature) {
	n, again, err := spelled(b)
	if err != nil {
		v.find(Altered, name, "%v", err)
		return
	}
	for _, s := range n.UnverifiedSigs {
		if !slices.ContainsFunc(sigs, func(k note.Signature) bool { return k.Name == s.Name && k.Hash == s.Hash }) {
			v.find(Altered, name, "it has a signature of %q, whom the policy does not know", s.Name)
		}
	}
	if !bytes.Equal(again, b) {
		v.find(Altered, name, "its signatures are not written as a log writes them")
	}
}

// spelled parses a note, and writes it the one way that it is written.
func spelled(b []byte) (*note.Note, []byte, error) {
	_, err := note.Open(b, note.VerifierList()) // nobody is known: it has all signatures as they are written
	var all *note.UnverifiedNoteError
	if !errors.As(err, &all) {
		return nil, nil, err
	}
	n := all.Note
	for i, s := range n.UnverifiedSigs {
		raw, _ := base64.StdEncoding.DecodeString(s.Base64) // note.Open did
		n.UnverifiedSigs[i].Base64 = base64.StdEncoding.EncodeToString(raw)
	}
	again, err := note.Sign(n)
	return n, again, err
}

// vouched judges what the signatures on the two checkpoints are worth.
func (v *Verification) vouched(p Policy, head, cosigned *cosignedHead) {
	for _, c := range []*cosignedHead{head, cosigned} {
		if c != nil && c.met {
			v.Cosigned = max(v.Cosigned, c.N)
		}
	}
	if head != nil && cosigned != nil && cosigned.N > head.N {
		v.find(RolledBack, checkpointName, "it has %d leaves, and witnesses cosigned %d", head.N, cosigned.N)
	}
	if !p.Witnessed() {
		return
	}
	switch {
	case cosigned == nil && head != nil && head.met:
		v.find(Removed, cosignedName, "the newest checkpoint has its cosignatures")
	case cosigned != nil && !cosigned.met:
		v.find(Altered, cosignedName, "it has fewer cosignatures than the policy asks for")
	case v.Cosigned < 0:
		v.find(Unvouched, "", "no checkpoint here has the cosignatures that the policy asks for")
	}
}

// others looks at the files that a tree of the head's size does not have.
func (v *Verification) others(dir string, writing bool) error {
	have := map[string]bool{checkpointName: true, cosignedName: true}
	for _, t := range edgeOf(v.Head.N) {
		have[torchwood.TilePath(t)] = true
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && writing {
			return nil
		}
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if !plausible(name + "/000") {
				v.find(Foreign, name+"/", "a log has no such directory")
				return fs.SkipDir
			}
			return nil
		}
		t, err := torchwood.ParseTilePath(strings.TrimSuffix(name, tempSuffix))
		tile := err == nil
		switch {
		case !d.Type().IsRegular():
			v.find(Altered, name, "it is no regular file")
		case have[name], tile && t.W == width && within(t, v.Head.N) && !strings.HasSuffix(name, tempSuffix):
		case !tile && strings.TrimSuffix(name, tempSuffix) != checkpointName && strings.TrimSuffix(name, tempSuffix) != cosignedName:
			v.find(Foreign, name, "a log has no such file")
		case !writing:
			v.find(Uncovered, name, "no checkpoint needs it: %s", CrashOrCut)
		}
		return nil
	})
}

// CrashOrCut is what is said where the newest records are not under a checkpoint and nobody is writing.
const CrashOrCut = "crash or cut: start stopd to close it"

// plausible reports whether a directory can be on the way to a tile.
func plausible(file string) bool {
	if file == "tile/000" || file == "tile/entries/000" {
		return true
	}
	file = strings.Replace(file, ".p/000", ".p/1", 1)
	_, err := torchwood.ParseTilePath(file)
	return err == nil
}
