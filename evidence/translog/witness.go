package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	witnessTimeout = 10 * time.Second // for one question
	maxReply       = 16 << 10         // a few signatures
	maxTries       = 3                // questions in one round: another size may be needed
	maxProof       = 63               // hashes, c2sp.org/tlog-witness
)

// What a witness says against a log. They go with the witness's name and sizes.
var (
	ErrRolledBack = errors.New("it saw a longer log")
	ErrForked     = errors.New("it saw another log")
)

// A conflictError is a witness's word that the newest checkpoint it cosigned is of this size.
type conflictError struct{ size int64 }

func (e *conflictError) Error() string { return fmt.Sprintf("the witness is at size %d", e.size) }

// WitnessClient goes where it is told and nowhere else. Its requests go by the transport, where that is not nil.
func WitnessClient(by http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     by,
		Timeout:       witnessTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// add asks a witness to cosign a checkpoint, with the proof that it continues the one of the old size. It
// returns the cosignature.
func (w Witness) add(ctx context.Context, by http.RoundTripper, head Signed, old int64, proof tlog.TreeProof) (note.Signature, error) {
	if len(proof) > maxProof {
		return note.Signature{}, fmt.Errorf("a proof of %d hashes", len(proof))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/add-checkpoint", bytes.NewReader(formatAdd(head, old, proof)))
	if err != nil {
		return note.Signature{}, err
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	r.Header.Set("User-Agent", "stopd")
	answer, err := WitnessClient(by).Do(r)
	if err != nil {
		return note.Signature{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxReply+1))
	if err != nil {
		return note.Signature{}, err
	}
	if len(body) > maxReply {
		return note.Signature{}, fmt.Errorf("an answer of more than %d octets", maxReply)
	}
	return w.parseAnswer(answer.StatusCode, body, head)
}

// formatAdd writes the body of an add-checkpoint request (c2sp.org/tlog-witness).
func formatAdd(head Signed, old int64, proof tlog.TreeProof) []byte {
	b := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		b = fmt.Appendf(b, "%s\n", h)
	}
	b = append(b, '\n')
	return append(b, head.note...)
}

// parseAnswer reads the answer to an add-checkpoint request. The cosignature that it returns is verified.
func (w Witness) parseAnswer(status int, body []byte, head Signed) (note.Signature, error) {
	switch status {
	case http.StatusOK:
		return w.parseCosignatures(body, head)
	case http.StatusConflict:
		text := strings.TrimSuffix(string(body), "\n")
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < 0 || text != strconv.FormatInt(size, 10) {
			return note.Signature{}, fmt.Errorf("status 409 with no size: %.40q", body)
		}
		return note.Signature{}, &conflictError{size}
	case http.StatusUnprocessableEntity:
		return note.Signature{}, fmt.Errorf("%w: the checkpoint does not continue what it cosigned", ErrForked)
	case http.StatusNotFound:
		return note.Signature{}, errors.New("it does not know this log (status 404)")
	case http.StatusForbidden:
		return note.Signature{}, errors.New("it knows another key of this log (status 403)")
	}
	return note.Signature{}, fmt.Errorf("status %d", status)
}

// parseCosignatures finds the witness's own signature among the lines of an answer. Others are left out.
func (w Witness) parseCosignatures(lines []byte, head Signed) (note.Signature, error) {
	n, err := note.Open(slices.Concat([]byte(head.text), []byte("\n"), lines), note.VerifierList(w.key))
	if err != nil {
		return note.Signature{}, fmt.Errorf("check cosignature: %w", err)
	}
	if n.Text != head.text || len(n.Sigs) != 1 {
		return note.Signature{}, errors.New("check cosignature: it is of another text")
	}
	if at, err := torchwood.CosignatureTimestamp(n.Sigs[0]); err != nil || at == 0 {
		return note.Signature{}, errors.New("check cosignature: it has no time")
	}
	return n.Sigs[0], nil
}

// A question is what a log asks one witness.
type question struct {
	witness Witness
	by      http.RoundTripper
	dir     string
	head    Signed
	old     int64 // the size that the witness is believed to be at
}

// ask has the witness cosign the head, and returns its signature. Where the witness is at another size than
// believed it asks again.
func (q question) ask(ctx context.Context) (note.Signature, error) {
	for try := 1; ; try++ {
		if q.old > q.head.N {
			return note.Signature{}, fmt.Errorf("%w: of %d leaves, and there are %d", ErrRolledBack, q.old, q.head.N)
		}
		proof, err := Consistency(q.dir, q.head.Tree, q.old)
		if err != nil {
			return note.Signature{}, err
		}
		sig, err := q.witness.add(ctx, q.by, q.head, q.old, proof)
		var conflict *conflictError
		if !errors.As(err, &conflict) || try == maxTries {
			return sig, err
		}
		q.old = conflict.size
	}
}

// A WitnessError is why there is no cosignature of one witness.
type WitnessError struct {
	Witness Witness
	Err     error
}

func (e *WitnessError) Error() string { return fmt.Sprintf("witness %s: %v", e.Witness.Name(), e.Err) }
func (e *WitnessError) Unwrap() error { return e.Err }

// Cosign shows the newest checkpoint to the witnesses of a policy, all at once, and keeps the cosignatures with
// it. Where they are a quorum, DIR/cosigned becomes that checkpoint. It returns an error for each witness that
// did not cosign. The log may grow meanwhile.
func (l *Log) Cosign(ctx context.Context, p Policy) (failed []*WitnessError, err error) {
	head := l.Head()
	sigs := make([]note.Signature, len(p.Witnesses))
	errs := make([]error, len(p.Witnesses))
	var asking sync.WaitGroup
	for i, w := range p.Witnesses {
		asking.Go(func() {
			sigs[i], errs[i] = question{w, p.Transport, l.dir, head, l.at(w)}.ask(ctx)
			if errs[i] == nil {
				l.mu.Lock()
				l.witnessed[w.key.String()] = head.N
				l.mu.Unlock()
			}
		})
	}
	asking.Wait()
	var fresh []note.Signature
	for i, w := range p.Witnesses {
		if errs[i] != nil {
			failed = append(failed, &WitnessError{w, errs[i]})
			continue
		}
		fresh = append(fresh, sigs[i])
	}
	if len(fresh) == 0 {
		return failed, nil
	}
	if err := l.keep(head, fresh, p); err != nil {
		return failed, fmt.Errorf("keep cosignatures: %w", err)
	}
	return failed, nil
}

// Ask has the witnesses of a policy say whether the newest checkpoint of a log continues what they saw of it. It
// returns what they have against it, and why those that have an address said nothing. Somebody may be writing.
func Ask(ctx context.Context, dir string, p Policy) (findings []Finding, silent []*WitnessError) {
	errs := make([]error, len(p.Witnesses))
	var asking sync.WaitGroup
	for i, w := range p.Witnesses {
		if w.URL != "" {
			asking.Go(func() { errs[i] = askNow(ctx, dir, p, w) })
		}
	}
	asking.Wait()
	for i, w := range p.Witnesses {
		switch err := errs[i]; {
		case err == nil:
		case errors.Is(err, ErrRolledBack):
			findings = append(findings, Finding{RolledBack, checkpointName, fmt.Sprintf("witness %s: %v", w.Name(), err)})
		case errors.Is(err, ErrForked):
			findings = append(findings, Finding{Forked, checkpointName, fmt.Sprintf("witness %s: %v", w.Name(), err)})
		default:
			silent = append(silent, &WitnessError{w, err})
		}
	}
	return findings, silent
}

// askNow asks one witness about the checkpoint that is the newest now. Where the witness has seen a longer log,
// that may have become one meanwhile.
func askNow(ctx context.Context, dir string, p Policy, w Witness) error {
	var last int64 = -1
	for {
		b, err := readBounded(filepath.Join(dir, checkpointName), maxCheckpoint)
		if err != nil {
			return err
		}
		head, _, err := p.open(b)
		if err != nil {
			return err
		}
		if _, err = (question{w, p.Transport, dir, head, head.N}).ask(ctx); !errors.Is(err, ErrRolledBack) || head.N == last {
			return err
		}
		last = head.N
	}
}

// at is the size that a witness is at, as far as is known: 0 has it say so.
func (l *Log) at(w Witness) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.witnessed[w.key.String()]
}

// keep writes a checkpoint with new cosignatures.
func (l *Log) keep(head Signed, fresh []note.Signature, p Policy) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	newest := l.Head()
	same := newest.text == head.text
	if same {
		head = newest
	}
	var err error
	if head.note, err = withSignatures(head.note, fresh, p.check); err != nil {
		return err
	}
	_, sigs, err := p.open(head.note)
	if err != nil {
		return err
	}
	// In this order: a checkpoint with a quorum is never there without the other file.
	if p.met(sigs) {
		if err := replaceFile(filepath.Join(l.dir, cosignedName), head.note); err != nil {
			return err
		}
	}
	if !same {
		return nil
	}
	if err := replaceFile(filepath.Join(l.dir, checkpointName), head.note); err != nil {
		return err
	}
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	return nil
}

// withSignatures adds signatures to a signed note, in the place of those of the same keys.
func withSignatures(b []byte, fresh []note.Signature, known note.Verifiers) ([]byte, error) {
	n, err := note.Open(b, known)
	if err != nil {
		return nil, err
	}
	n.Sigs = slices.DeleteFunc(n.Sigs, func(old note.Signature) bool {
		return slices.ContainsFunc(fresh, func(s note.Signature) bool { return s.Name == old.Name && s.Hash == old.Hash })
	})
	n.Sigs = append(n.Sigs, fresh...)
	n.UnverifiedSigs = nil // of witnesses that the policy no longer knows
	return note.Sign(n)
}
