package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
)

// A site is a host's store, its log, and witnesses that cosign whatever it signs.
type site struct {
	t         testing.TB
	id        *age.X25519Identity
	key       translog.Key
	store     *evidence.Store
	witnesses []*torchwood.CosignatureSigner
	policy    translog.Policy
}

func newSite(t testing.TB, name string, witnesses int) *site {
	t.Helper()
	return newSiteAt(t, name, witnesses, time.Now)
}

func newSiteAt(t testing.TB, name string, witnesses int, now func() time.Time) *site {
	t.Helper()
	s := &site{t: t}
	var err error
	if s.id, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	text, err := translog.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	if s.key, err = translog.ParseKey(text); err != nil {
		t.Fatal(err)
	}
	var known []translog.Witness
	for i := range witnesses {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := torchwood.NewCosignatureSigner(fmt.Sprintf("w%d.example", i+1), private)
		if err != nil {
			t.Fatal(err)
		}
		w, err := translog.ParseWitness(fmt.Sprintf("https://w%d.example", i+1), signer.Verifier().String())
		if err != nil {
			t.Fatal(err)
		}
		s.witnesses, known = append(s.witnesses, signer), append(known, w)
	}
	if s.policy, err = translog.NewPolicy(s.key.Verifier(), known, witnesses); err != nil {
		t.Fatal(err)
	}
	s.policy.Transport = s
	c := evidence.Config{Recipients: []age.Recipient{s.id.Recipient()}, LogKey: &s.key, AllowVolatile: true, Now: now, Logger: slog.New(slog.DiscardHandler)}
	if s.store, err = evidence.Open(filepath.Join(t.TempDir(), "store"), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	return s
}

// RoundTrip is the witnesses: each cosigns the checkpoint that it is sent.
func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	_, signed, _ := bytes.Cut(body, []byte("\n\n"))
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	for _, w := range s.witnesses {
		if w.Name() != r.URL.Host {
			continue
		}
		n, err := note.Sign(&note.Note{Text: string(text) + "\n"}, w)
		if err != nil {
			return nil, err
		}
		_, lines, _ := bytes.Cut(n, []byte("\n\n"))
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(lines))}, nil
	}
	return nil, errors.New("no such witness")
}

// keep keeps a report with what its trace-back brought.
func (s *site) keep(report, traceback string) stop.Token {
	s.t.Helper()
	token, err := s.store.Keep(s.t.Context(), []byte(report), stop.Payer{Traceback: traceback != ""})
	if err == nil && traceback != "" {
		err = s.store.KeepTraceback(s.t.Context(), token, []byte(traceback))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// cosign signs the log as it is and has the witnesses cosign it.
func (s *site) cosign() {
	s.t.Helper()
	if err := s.store.Log().Checkpoint(); err != nil {
		s.t.Fatal(err)
	}
	if failed, err := s.store.Log().Cosign(s.t.Context(), s.policy); err != nil || len(failed) > 0 {
		s.t.Fatal(failed, err)
	}
}

// redeem lets a token's records out.
func (s *site) redeem(r evidence.Redemption) []evidence.Disclosed {
	s.t.Helper()
	export, err := s.store.Export(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	ds, err := evidence.Disclose(export, s.id)
	if err != nil {
		s.t.Fatal(err)
	}
	return ds
}

func (s *site) bundle(token stop.Token) []byte {
	s.t.Helper()
	return s.pack(s.redeem(evidence.Redemption{Token: token, By: "alice", Reason: "case 7"}))
}

var day = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

func (s *site) pack(ds []evidence.Disclosed) []byte {
	s.t.Helper()
	b, err := Make(ds, "stopctl test", day)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func mustOpen(t testing.TB, b []byte) *Bundle {
	t.Helper()
	o, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRoundTrip(t *testing.T) {
	s := newSite(t, "stone.example", 2)
	token := s.keep("report one", "[]")
	s.cosign()
	s.bundle(token)
	if err := s.store.Hold(t.Context(), evidence.Redemption{Token: token, By: "judge", Reason: "order 18"}); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, s.bundle(token))
	if b.Token != token || string(b.Report) != "report one" || len(b.Tracebacks) != 1 || string(b.Tracebacks[0]) != "[]" {
		t.Errorf("%+v", b.Evidence)
	}
	var acts []string
	for _, c := range b.Custody {
		acts = append(acts, strings.Join([]string{c.Act, c.By, c.Reason, c.Outcome}, " "))
	}
	if got := strings.Join(acts, ", "); got != "redemption alice case 7 exported, hold judge order 18 held, redemption alice case 7 exported" {
		t.Errorf("custody: %s", got)
	}
	if b.Log != s.key.Origin() || b.Agent != "stopctl test" || b.Day != "2026-11-23" {
		t.Errorf("log %q, by %q on %q", b.Log, b.Agent, b.Day)
	}
	for _, r := range b.Records {
		if r.Proof == nil {
			t.Errorf("record %d, a %s, has no proof", r.Number, r.Type)
		}
	}
}
