package translog

import (
	"bytes"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func FuzzAnswer(f *testing.F) {
	key := newKey(f)
	head, err := key.sign(tlog.Tree{N: 5})
	if err != nil {
		f.Fatal(err)
	}
	w := newWitness(f, "w.example", key)
	good, err := note.Sign(&note.Note{Text: head.text}, w.signer)
	if err != nil {
		f.Fatal(err)
	}
	good = good[len(head.text)+1:]
	f.Add(200, good)
	f.Add(200, append([]byte("\n"), good...))
	f.Add(409, []byte("12\n"))
	f.Add(409, []byte("-1"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		sig, err := w.parseAnswer(status, body, head)
		if err != nil {
			return
		}
		b, err := withSignatures(head.note, []note.Signature{sig}, note.VerifierList(key.verifier, w.key))
		if err != nil {
			t.Fatalf("an answer that was taken: %v", err)
		}
		if n, err := note.Open(b, note.VerifierList(w.key)); err != nil || n.Text != head.text {
			t.Fatalf("an answer that was taken does not verify: %v", err)
		}
	})
}

func FuzzSigned(f *testing.F) {
	key := newKey(f)
	head, err := key.sign(tlog.Tree{N: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head.note)
	f.Add(append(head.note, head.note...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, _, err := key.policy().open(b); err == nil && s.text != head.text {
			t.Fatalf("a checkpoint that the log did not sign: %q", s.text)
		}
	})
}

func FuzzBundle(f *testing.F) {
	good := []byte{0, LeafSize}
	good = leafOf(1).Append(good)
	f.Add(good, 1)
	f.Add(append(good, good...), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > width {
			return
		}
		leaves, err := parseBundle(b, n)
		if err != nil {
			return
		}
		var again []byte
		for _, l := range leaves {
			again, _ = torchwood.AppendTileEntry(again, l.Append(nil))
		}
		if !bytes.Equal(b, again) {
			t.Fatal("a bundle that is not the one of its leaves")
		}
	})
}
