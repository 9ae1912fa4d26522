package translog

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A testWitness is a witness of c2sp.org/tlog-witness for one log.
type testWitness struct {
	Witness
	private ed25519.PrivateKey
	signer  *torchwood.CosignatureSigner
	log     note.Verifier
	server  *httptest.Server

	mu    sync.Mutex
	seen  tlog.Tree
	asked int
	// instead answers in its place, where it is set.
	instead http.HandlerFunc
}

func newWitness(t testing.TB, name string, key Key) *testWitness {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := torchwood.NewCosignatureSigner(name, private)
	if err != nil {
		t.Fatal(err)
	}
	w := &testWitness{private: private, signer: signer, log: key.Verifier()}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	w.Witness, err = ParseWitness(w.server.URL+"/w/", signer.Verifier().String())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *testWitness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.instead != nil {
		w.instead(rw, r)
		return
	}
	status, body := w.answer(r)
	if status == http.StatusConflict {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	}
	rw.WriteHeader(status)
	rw.Write(body)
}

func (w *testWitness) answer(r *http.Request) (int, []byte) {
	if r.Method != http.MethodPost || r.URL.Path != "/w/add-checkpoint" {
		return http.StatusNotFound, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return http.StatusBadRequest, nil
	}
	first, signed, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(first, "\n")
	var old int64
	if n, err := fmt.Sscanf(lines[0], "old %d", &old); n != 1 || err != nil {
		return http.StatusBadRequest, nil
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return http.StatusBadRequest, nil
		}
		proof = append(proof, h)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(w.log))
	if err != nil {
		return http.StatusForbidden, nil
	}
	c, err := torchwood.ParseCheckpoint(n.Text)
	switch {
	case err != nil:
		return http.StatusBadRequest, nil
	case c.Origin != w.log.Name():
		return http.StatusNotFound, nil
	case old > c.N:
		return http.StatusBadRequest, nil
	case old != w.seen.N:
		return http.StatusConflict, fmt.Appendf(nil, "%d\n", w.seen.N)
	case old == 0 && len(proof) > 0:
		return http.StatusUnprocessableEntity, nil
	case old > 0 && tlog.CheckTree(proof, c.N, c.Hash, old, w.seen.Hash) != nil:
		return http.StatusUnprocessableEntity, nil
	}
	w.seen = c.Tree
	out, err := note.Sign(&note.Note{Text: n.Text}, w.signer)
	if err != nil {
		return http.StatusInternalServerError, nil
	}
	return http.StatusOK, out[bytes.LastIndex(out, []byte("\n\n"))+2:]
}

func policyOf(t testing.TB, key Key, quorum int, ws ...*testWitness) Policy {
	t.Helper()
	var witnesses []Witness
	for _, w := range ws {
		witnesses = append(witnesses, w.Witness)
	}
	p, err := NewPolicy(key.Verifier(), witnesses, quorum)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cosigned is the size that a quorum cosigned, as the files have it: -1 without.
func cosigned(t testing.TB, l *Log, p Policy) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, "cosigned"))
	if errors.Is(err, os.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	s, sigs, err := p.open(b)
	if err != nil || !p.met(sigs) {
		t.Fatalf("cosigned: %v, %d signatures", err, len(sigs))
	}
	return s.N
}

func TestCosign(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	a, b, c := newWitness(t, "a.example/w", key), newWitness(t, "b.example/w", key), newWitness(t, "c.example/w", key)
	p := policyOf(t, key, 2, a, b, c)
	away := func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) }
	for _, step := range []struct {
		size   int64
		away   []*testWitness
		quorum int64 // the size a quorum has cosigned after it
		names  string
	}{
		{0, nil, 0, "a b c"},
		{7, nil, 7, "a b c"},
		{300, []*testWitness{b}, 300, "a c"},
		{301, []*testWitness{a, b}, 300, "c"},
		{301, []*testWitness{c}, 301, "a b c"}, // c's stays with it
		{70000, nil, 70000, "a b c"},
		{70000, nil, 70000, "a b c"},
	} {
		for _, w := range step.away {
			w.instead = away
		}
		grow(t, l, step.size)
		failed, err := l.Cosign(t.Context(), p)
		if err != nil || len(failed) != len(step.away) {
			t.Fatalf("at %d: %v, %v", step.size, failed, err)
		}
		if got := cosigned(t, l, p); got != step.quorum {
			t.Errorf("at %d: a quorum cosigned %d, want %d", step.size, got, step.quorum)
		}
		onDisk, err := os.ReadFile(filepath.Join(l.dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		_, sigs, err := p.open(onDisk)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, s := range sigs[1:] {
			names[s.Name[:1]] = true
		}
		want := map[string]bool{}
		for _, n := range strings.Fields(step.names) {
			want[n] = true
		}
		if d := cmp.Diff(want, names); d != "" || len(sigs) != 1+len(want) {
			t.Errorf("at %d: cosignatures (-want +got):\n%s", step.size, d)
		}
		for _, w := range step.away {
			w.instead = nil
		}
		if step.size == 301 {
			l = open(t, l.dir, key) // which knows of no witness where it is
		}
	}
}

// What witnesses say of another log of the same name and key.
func TestAnotherLog(t *testing.T) {
	key := newKey(t)
	w := newWitness(t, "w.example", key)
	p := policyOf(t, key, 0, w)
	l := create(t, key)
	grow(t, l, 300)
	if failed, err := l.Cosign(t.Context(), p); len(failed) > 0 || err != nil {
		t.Fatal(failed, err)
	}
	ask := func(size int64, change bool) error {
		other := create(t, key)
		leaves := leavesOf(0, size)
		if change {
			leaves[17].Content[0] ^= 1
		}
		if err := errors.Join(other.Append(leaves), other.Checkpoint()); err != nil {
			t.Fatal(err)
		}
		failed, err := other.Cosign(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if len(failed) == 0 {
			return nil
		}
		return failed[0]
	}
	if err := ask(299, false); !errors.Is(err, ErrRolledBack) {
		t.Errorf("a shorter log: %v", err)
	}
	for _, size := range []int64{300, 400} {
		if err := ask(size, true); !errors.Is(err, ErrForked) {
			t.Errorf("another log of %d leaves: %v", size, err)
		}
		if err := ask(size, false); err != nil {
			t.Errorf("the same log at %d: %v", size, err)
		}
	}
}

// An audit learns from the witnesses that a log was rolled back to an earlier state of itself, or that one of
// them was shown another.
func TestAsk(t *testing.T) {
	key := newKey(t)
	a, b := newWitness(t, "a.example", key), newWitness(t, "b.example", key)
	p := policyOf(t, key, 1, a, b)
	l := create(t, key)
	grow(t, l, 300)
	if failed, err := l.Cosign(t.Context(), p); len(failed) > 0 || err != nil {
		t.Fatal(failed, err)
	}
	snapshot := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(snapshot, os.DirFS(l.dir)); err != nil {
		t.Fatal(err)
	}
	grow(t, l, 310)
	if failed, err := l.Cosign(t.Context(), policyOf(t, key, 0, a)); len(failed) > 0 || err != nil {
		t.Fatal(failed, err)
	}
	fork := open(t, snapshot, key)
	leaves := leavesOf(300, 310)
	leaves[3].Time = time.Unix(1, 0)
	verdicts := func(dir string) (got []string) {
		t.Helper()
		findings, silent := Ask(t.Context(), dir, p)
		for _, f := range findings {
			got = append(got, string(f.Verdict)+f.Detail[:9])
		}
		for _, s := range silent {
			got = append(got, s.Error())
		}
		return got
	}
	if d := cmp.Diff([]string{"rolled backwitness a"}, verdicts(snapshot)); d != "" {
		t.Errorf("rolled back (-want +got):\n%s", d)
	}
	if err := errors.Join(fork.Append(leaves), fork.Checkpoint()); err != nil {
		t.Fatal(err)
	}
	if failed, err := fork.Cosign(t.Context(), policyOf(t, key, 0, b)); len(failed) > 0 || err != nil {
		t.Fatal(failed, err)
	}
	// Each of the two logs is sound, and has its quorum of one.
	for dir, want := range map[string]string{l.dir: "forkedwitness b", fork.dir: "forkedwitness a"} {
		if v := verify(t, dir, p); len(v.Findings) > 0 || v.Cosigned != 310 {
			t.Errorf("one side of the fork: %+v", v)
		}
		if d := cmp.Diff([]string{want}, verdicts(dir)); d != "" {
			t.Errorf("forked (-want +got):\n%s", d)
		}
	}
	b.server.Close()
	if got := verdicts(fork.dir); len(got) != 2 {
		t.Errorf("with one witness gone: %q", got)
	}
}

// No answer of a witness gets into the log but its own, right cosignature.
func TestWitnessesThatLie(t *testing.T) {
	key := newKey(t)
	l := create(t, key)
	grow(t, l, 5)
	other, stranger := newWitness(t, "w.example", key), newWitness(t, "stranger.example", key)
	sign := func(text string, s note.Signer) []byte {
		b, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return b[bytes.LastIndex(b, []byte("\n\n"))+2:]
	}
	head := l.Head()
	shorter := torchwood.Checkpoint{Origin: key.Origin(), Tree: tlog.Tree{N: 4}}.String()
	for name, body := range map[string][]byte{
		"nothing":            nil,
		"rubbish":            []byte("rubbish"),
		"another text":       append(append([]byte(shorter), '\n'), sign(shorter, other.signer)...),
		"another checkpoint": sign(shorter, other.signer),
		"a stranger's":       sign(head.text, stranger.signer),
		"the log's own":      sign(head.text, key.signer),
		"a blank line first": append([]byte("more\n\n"), sign(head.text, other.signer)...),
		"endless":            bytes.Repeat([]byte("— w.example AAAA\n"), 10000),
	} {
		w := newWitness(t, "w.example", key)
		w.instead = func(rw http.ResponseWriter, _ *http.Request) { rw.Write(body) }
		p := policyOf(t, key, 0, w)
		if failed, err := l.Cosign(t.Context(), p); len(failed) != 1 || err != nil {
			t.Errorf("%s: %v, %v", name, failed, err)
		}
		if got := cosigned(t, l, p); got != -1 {
			t.Errorf("%s: cosigned at %d", name, got)
		}
	}
	// Nor does one that names ever other sizes keep it busy, or one that sends it elsewhere.
	w := newWitness(t, "w.example", key)
	w.instead = func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintf(rw, "%d\n", w.asked%5)
	}
	if failed, _ := l.Cosign(t.Context(), policyOf(t, key, 0, w)); len(failed) != 1 || w.asked != maxTries {
		t.Errorf("ever other sizes: %v, asked %d times", failed, w.asked)
	}
	w = newWitness(t, "w.example", key)
	w.instead = func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, stranger.URL, http.StatusTemporaryRedirect)
	}
	if failed, _ := l.Cosign(t.Context(), policyOf(t, key, 0, w)); len(failed) != 1 || stranger.asked > 0 {
		t.Errorf("redirected: %v, asked there %d times", failed, stranger.asked)
	}
	if d := cmp.Diff(head.Note(), l.Head().Note()); d != "" {
		t.Errorf("the checkpoint changed:\n%s", d)
	}
}
