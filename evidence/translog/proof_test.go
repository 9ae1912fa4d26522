package translog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A lateWitness signs with a clock of its own.
type lateWitness struct {
	*testWitness
	at int64
}

func (w lateWitness) Name() string    { return w.signer.Name() }
func (w lateWitness) KeyHash() uint32 { return w.signer.KeyHash() }
func (w lateWitness) Sign(text []byte) ([]byte, error) {
	sig := ed25519.Sign(w.private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", w.at, text))
	return append(binary.BigEndian.AppendUint64(nil, uint64(w.at)), sig...), nil
}

// A checkpoint is as old as the signature with which there were enough: neither the first nor the last.
func TestTimeOfAQuorum(t *testing.T) {
	l, key := newLog(t)
	if err := errors.Join(l.Append(leavesOf(0, 3)), l.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	var witnesses []Witness
	var signers []note.Signer
	for i, at := range []int64{3000, 1000, 2000, 500} {
		w := newWitness(t, fmt.Sprintf("w%d.example", i), key)
		signers = append(signers, lateWitness{w, at})
		if i < 3 { // the last is a stranger
			witnesses = append(witnesses, w.Witness)
		}
	}
	proof, err := prove(l, 1, leavesOf(0, 3)[1])
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseProof(proof)
	if err != nil {
		t.Fatal(err)
	}
	if p.note, err = note.Sign(&note.Note{Text: p.Checkpoint.String()}, append([]note.Signer{key.signer}, signers...)...); err != nil {
		t.Fatal(err)
	}
	for quorum, want := range []int64{3000, 1000, 2000, 3000} { // 0 is all
		policy, err := NewPolicy(key.Verifier(), witnesses, quorum)
		if err != nil {
			t.Fatal(err)
		}
		s, err := policy.Weigh(p)
		if err != nil || !s.Met || s.By.Unix() != want || len(s.Cosignatures) != 3 {
			t.Errorf("quorum of %d: %+v, %v, want it by %d", quorum, s, err, want)
		}
	}
	none := key.policy()
	if s, err := none.Weigh(p); err != nil || !s.Met || !s.By.IsZero() {
		t.Errorf("without witnesses: %+v, %v", s, err)
	}
}

func TestProofs(t *testing.T) {
	l, key := newLog(t)
	leaves := leavesOf(0, 700)
	if err := errors.Join(l.Append(leaves[:600]), l.Checkpoint(), l.Append(leaves[600:])); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, 1, 255, 256, 511, 599} {
		b, err := prove(l, n, leaves[n])
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseProof(b)
		if err != nil || p.Leaf != leaves[n] || p.Index != n || p.Checkpoint.N != 600 {
			t.Errorf("leaf %d: %+v, %v", n, p, err)
		}
		if _, err := prove(l, n, leaves[n+1]); !errors.Is(err, ErrAltered) {
			t.Errorf("leaf %d: another is proven: %v", n, err)
		}
	}
	if b, err := prove(l, 600, leaves[600]); err != nil || b != nil {
		t.Errorf("a leaf that no checkpoint covers: %q, %v", b, err)
	}
	b, err := prove(l, 300, leaves[300])
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		flipped := bytes.Clone(b)
		flipped[i] ^= 1 << (i % 8)
		p, err := ParseProof(flipped)
		if err == nil {
			_, err = key.policy().Weigh(p) // the size and the name of the log are under the signature alone
		}
		if err == nil {
			t.Fatalf("octet %d: %+v", i, p)
		}
	}
}

// A checkpoint that a quorum cosigned is preferred where it covers the leaf.
func TestProofUnderTheCosignedCheckpoint(t *testing.T) {
	l, key := newLog(t)
	w := newWitness(t, "w.example", key)
	policy, err := NewPolicy(key.Verifier(), []Witness{w.Witness}, 1)
	if err != nil {
		t.Fatal(err)
	}
	leaves := leavesOf(0, 10)
	if err := errors.Join(l.Append(leaves[:5]), l.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	if failed, err := l.Cosign(t.Context(), policy); err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	if err := errors.Join(l.Append(leaves[5:]), l.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int64]int64{0: 5, 4: 5, 5: 10, 9: 10} {
		b, err := prove(l, n, leaves[n])
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseProof(b)
		if err != nil || p.Checkpoint.N != want {
			t.Errorf("leaf %d: of %d leaves, %v, want %d", n, p.Checkpoint.N, err, want)
			continue
		}
		s, err := policy.Weigh(p)
		if err != nil || s.Met != (want == 5) || s.Met && time.Since(s.By) > time.Hour {
			t.Errorf("leaf %d: %+v, %v", n, s, err)
		}
	}
	if err := replaceFile(filepath.Join(l.dir, cosignedName), []byte("x")); err != nil {
		t.Fatal(err)
	}
	p, err := l.Prover()
	if !errors.Is(err, ErrAltered) {
		t.Errorf("with another file in its place: %v, want %v", err, ErrAltered)
	}
	if b, err := p.Prove(0, leaves[0]); err != nil || b == nil {
		t.Errorf("with another file in its place, by the newest checkpoint: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(l.dir, cosignedName)), os.RemoveAll(filepath.Join(l.dir, "tile", "0"))); err != nil {
		t.Fatal(err)
	}
	if _, err := prove(l, 0, leaves[0]); !errors.Is(err, ErrUnproven) {
		t.Errorf("without tiles: %v, want %v", err, ErrUnproven)
	}
}

func FuzzParseProof(f *testing.F) {
	l, key := newLog(f)
	if err := errors.Join(l.Append(leavesOf(0, 3)), l.Checkpoint()); err != nil {
		f.Fatal(err)
	}
	b, err := prove(l, 1, leavesOf(0, 3)[1])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProof(b)
		if err != nil {
			return
		}
		key.policy().Weigh(p)
	})
}

func prove(l *Log, n int64, leaf Leaf) ([]byte, error) {
	p, err := l.Prover()
	if err != nil {
		return nil, err
	}
	return p.Prove(n, leaf)
}

func newLog(t testing.TB) (*Log, Key) {
	t.Helper()
	key := newKey(t)
	return create(t, key), key
}
