package evidence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence/translog"
)

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newLogKey(t testing.TB) translog.Key {
	t.Helper()
	text, err := translog.GenerateKey("host.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// configFor completes c for a test: sealed to ids, on whatever file system the tests run.
func configFor(c Config, ids ...*age.X25519Identity) Config {
	for _, id := range ids {
		c.Recipients = append(c.Recipients, id.Recipient())
	}
	c.AllowVolatile = true
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func openAt(t testing.TB, dir string, c Config, ids ...*age.X25519Identity) *Store {
	t.Helper()
	s, err := Open(dir, configFor(c, ids...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() }) // a second Close is an error that does not matter here
	return s
}

func openTest(t testing.TB, c Config, ids ...*age.X25519Identity) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "store"), c, ids...)
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func keep(t testing.TB, s *Store, report string) stop.Token {
	t.Helper()
	token, err := s.Keep(t.Context(), []byte(report), stop.Payer{})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func keepTraceback(t testing.TB, s *Store, token stop.Token, traceback string) {
	t.Helper()
	if err := s.KeepTraceback(t.Context(), token, []byte(traceback)); err != nil {
		t.Fatal(err)
	}
}

func asking(token stop.Token) Redemption {
	return Redemption{Token: token, By: "alice", Reason: "case 7"}
}

func export(t testing.TB, s *Store, token stop.Token) []byte {
	t.Helper()
	b, err := s.Export(t.Context(), asking(token))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entries(t testing.TB, dir string) []Entry {
	t.Helper()
	var all []Entry
	if err := List(dir, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// types gives the types of records, without those of batches: how many there are depends on the time.
func types(all []Entry) []string {
	var names []string
	for _, e := range all {
		if e.Type != "batch" {
			names = append(names, e.Type)
		}
	}
	return names
}

// clock gives a Now that advances a minute with every call.
func clock(start time.Time) func() time.Time {
	var mu sync.Mutex
	now := start
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Minute)
		return now
	}
}

func TestRoundTrip(t *testing.T) {
	alice, bob := newIdentity(t), newIdentity(t)
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	s := openTest(t, Config{Now: clock(noon)}, alice, bob) // state: 12:01, start: 12:02
	token := keep(t, s, "report one")                      // 12:03
	keepTraceback(t, s, token, "asked")
	other := keep(t, s, "report two")
	keepTraceback(t, s, other, "of the other")
	keepTraceback(t, s, token, "")
	keepTraceback(t, s, token, "answered")

	want := Evidence{
		Token:      token,
		Report:     []byte("report one"),
		Tracebacks: [][]byte{[]byte("asked"), {}, []byte("answered")},
		Kept:       noon.Add(3 * time.Minute),
	}
	sealed := export(t, s, token)
	for name, id := range map[string]age.Identity{"alice": alice, "bob": bob} {
		got, err := Unseal(sealed, id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got, err := Unseal(sealed, newIdentity(t)); !errors.Is(err, ErrWrongKey) || !cmp.Equal(got, Evidence{}) {
		t.Errorf("Unseal with another's key: %+v, %v, want %v", got, err, ErrWrongKey)
	}

	// The same once the store was closed and opened again.
	closeStore(t, s)
	s = openAt(t, s.dir, Config{}, alice)
	if got, err := Unseal(export(t, s, token), alice); err != nil || !cmp.Equal(got, want) {
		t.Errorf("after opening again: %v\n%s", err, cmp.Diff(want, got))
	}
}

func TestNothingOnDiskNamesAToken(t *testing.T) {
	s := openTest(t, Config{}, newIdentity(t))
	token := keep(t, s, "a report")
	keepTraceback(t, s, token, "a trace-back")
	export(t, s, token)
	closeStore(t, s)
	disk, err := os.ReadFile(s.open.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{string(token[:]), token.String(), "a report", "a trace-back", "alice", "case 7"} {
		if strings.Contains(string(disk), secret) {
			t.Errorf("the segment holds %q", secret)
		}
	}
	var report, traceback, redemption locator
	if _, err := walk(t.Context(), strings.NewReader(string(disk)), int64(len(disk)), func(_ int64, r record) error {
		switch r.kind {
		case typeReport:
			report = r.locator
		case typeTraceback:
			traceback = r.locator
		case typeRedemption:
			redemption = r.locator
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if report == traceback || report != redemption {
		t.Errorf("locators: report %x, trace-back %x, redemption %x", report, traceback, redemption)
	}
}

func TestListAndRedeemed(t *testing.T) {
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	s := openTest(t, Config{Now: clock(noon)}, newIdentity(t))
	keep(t, s, "one")
	token := keep(t, s, "two")
	keepTraceback(t, s, token, "asked")
	export(t, s, token)
	if _, err := s.Export(t.Context(), asking(stop.Token{1})); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Export of no token: %v, want %v", err, ErrNotFound)
	}
	all := entries(t, s.dir) // while the store is open
	want := []string{"state", "start", "report", "report", "traceback", "redemption", "redemption"}
	if diff := cmp.Diff(want, types(all)); diff != "" {
		t.Fatalf("types (-want +got):\n%s", diff)
	}
	reports := 0
	for i, e := range all {
		if e.Type == "report" {
			reports++
		}
		redeemed := e.Type == "report" && reports == 2
		if e.Redeemed != redeemed || e.Number != uint64(i) || e.Segment != 1 || e.Time.Before(noon) || e.Size == 0 || e.Cut != 0 {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	enough := errors.New("enough")
	n := 0
	if err := List(s.dir, func(Entry) error { n++; return enough }); err != enough || n != 1 {
		t.Errorf("List stopped by yield: %v after %d", err, n)
	}
	if err := List(filepath.Join(s.dir, "missing"), func(Entry) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of no store: %v", err)
	}
}

func TestResolve(t *testing.T) {
	id := newIdentity(t)
	noon := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	s := openTest(t, Config{Now: clock(noon)}, id)
	token := keep(t, s, "one") // 12:03
	keep(t, s, "two")
	full := token.String()
	for _, test := range []struct {
		name, prefix string
		around       time.Time
		id           age.Identity
		want         error
	}{
		{"ten characters", full[:10], time.Time{}, id, nil},
		{"all characters", full, time.Time{}, id, nil},
		{"within the hour", full[:10], noon.Add(time.Hour), id, nil},
		{"hours later", full[:10], noon.Add(3 * time.Hour), id, ErrNotFound},
		{"no such token", "saaaaaaaaaaa", time.Time{}, id, ErrNotFound},
		{"another's key", full[:10], time.Time{}, newIdentity(t), ErrWrongKey},
	} {
		got, err := Resolve(s.dir, test.prefix, test.around, test.id)
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err == nil && !slices.Equal(got, []stop.Token{token}) {
			t.Errorf("%s: %v, want %v", test.name, got, token)
		}
	}
	for _, prefix := range []string{"", full[:9], full + "a", "x" + full[1:], strings.ToUpper(full[:10]), "s111111111"} {
		if _, err := Resolve(s.dir, prefix, time.Time{}, id); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("prefix %q: %v, want a refusal", prefix, err)
		}
	}
}

func TestConcurrent(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	const keepers, each = 64, 4
	tokens := make([][]stop.Token, keepers)
	var keeping sync.WaitGroup
	for i := range keepers {
		keeping.Go(func() {
			for j := range each {
				token, err := s.Keep(t.Context(), fmt.Appendf(nil, "report %d of %d", j, i), stop.Payer{})
				if err == nil {
					err = s.KeepTraceback(t.Context(), token, []byte("asked"))
				}
				if err != nil {
					t.Error(err)
					return
				}
				tokens[i] = append(tokens[i], token)
			}
		})
	}
	keeping.Wait()
	for i := range tokens {
		for j, token := range tokens[i] {
			e, err := Unseal(export(t, s, token), id)
			if want := fmt.Sprintf("report %d of %d", j, i); err != nil || string(e.Report) != want || len(e.Tracebacks) != 1 {
				t.Fatalf("report %q, %d trace-backs, error %v, want %q", e.Report, len(e.Tracebacks), err, want)
			}
		}
	}
}

func TestCloseAndCancel(t *testing.T) {
	s := openTest(t, Config{}, newIdentity(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if token, err := s.Keep(ctx, []byte("report"), stop.Payer{}); !errors.Is(err, context.Canceled) || token != (stop.Token{}) {
		t.Errorf("Keep after cancel: %v, %v", token, err)
	}
	closeStore(t, s)
	if _, err := s.Keep(t.Context(), []byte("report"), stop.Payer{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Keep after Close: %v, want %v", err, os.ErrClosed)
	}
	if _, err := s.Export(t.Context(), asking(stop.Token{})); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Export after Close: %v, want %v", err, os.ErrClosed)
	}
	if err := s.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close again: %v, want %v", err, os.ErrClosed)
	}
}
