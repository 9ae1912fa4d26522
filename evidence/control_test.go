package evidence

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd"
)

// serve serves s's control socket until the test ends or end is called.
func serve(t *testing.T, s *Store) (end func()) {
	t.Helper()
	l, err := ListenControl(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.ServeControl(ctx, l) }()
	stopped := false
	end = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Errorf("ServeControl: %v", err)
		}
	}
	t.Cleanup(end)
	return end
}

func connect(t *testing.T, s *Store) net.Conn {
	t.Helper()
	conn, err := dialControl(t.Context(), s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestExportWhileRunning(t *testing.T) {
	names := map[string]string{"short": "store"}
	if runtime.GOOS == "linux" {
		names["longer than sun_path"] = strings.Repeat(strings.Repeat("d", 99)+"/", 4) + "store"
	}
	for name, dir := range names {
		t.Run(name, func(t *testing.T) {
			id := newIdentity(t)
			s := openAt(t, filepath.Join(t.TempDir(), dir), Config{}, id)
			token := keep(t, s, "report")
			keepTraceback(t, s, token, "asked")
			end := serve(t, s)
			info, err := os.Lstat(s.dir + ".sock")
			if err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Fatalf("socket: %v, %v", info.Mode(), err)
			}
			if l, err := ListenControl(s.dir); !errors.Is(err, ErrLocked) {
				l.Close()
				t.Errorf("ListenControl again: %v, want %v", err, ErrLocked)
			}
			// No recipients: what answers is the store that is open.
			sealed, err := Export(t.Context(), s.dir, asking(token), Config{})
			if err != nil {
				t.Fatal(err)
			}
			e, err := Unseal(sealed, id)
			if err != nil || string(e.Report) != "report" || len(e.Tracebacks) != 1 {
				t.Errorf("evidence %+v, %v", e, err)
			}
			_, err = Export(t.Context(), s.dir, asking(stop.Token{}), Config{})
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("Export of no token: %v, want %v", err, ErrNotFound)
			}
			if diff := cmp.Diff([]string{"state", "start", "report", "traceback", "redemption", "redemption"}, types(entries(t, s.dir))); diff != "" {
				t.Errorf("types (-want +got):\n%s", diff)
			}
			end()
			if _, err := os.Lstat(s.dir + ".sock"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("socket after ServeControl: %v", err)
			}
		})
	}
}

func TestExportWhenNoneRuns(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	token := keep(t, s, "report")
	l, err := ListenControl(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	// As when the daemon dies: its socket stays.
	if err := l.(*controlListener).Listener.Close(); err != nil {
		t.Fatal(err)
	}
	c := configFor(Config{}, id)
	if _, err := Export(t.Context(), s.dir, asking(token), c); !errors.Is(err, ErrLocked) {
		t.Errorf("Export while the lock is held: %v, want %v", err, ErrLocked)
	}
	closeStore(t, s)
	sealed, err := Export(t.Context(), s.dir, asking(token), c)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := Unseal(sealed, id); err != nil || string(e.Report) != "report" {
		t.Errorf("evidence %+v, %v", e, err)
	}
	s = openAt(t, s.dir, Config{}, id)
	serve(t, s)
	if _, err := Export(t.Context(), s.dir, asking(token), Config{}); err != nil {
		t.Errorf("Export over the replaced socket: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := Export(t.Context(), missing, asking(token), c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Export from no store: %v, want %v", err, os.ErrNotExist)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Export made a store: %v", err)
	}
}

func TestListenControlLeavesOtherFiles(t *testing.T) {
	s := openTest(t, Config{}, newIdentity(t))
	if err := os.WriteFile(s.dir+".sock", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenControl(s.dir); err == nil {
		l.Close()
		t.Error("a file in the socket's place was replaced")
	}
}

func TestControlRubbish(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	token := keep(t, s, "report")
	serve(t, s)
	name := token.String()
	for _, test := range []struct{ name, line, code string }{
		{"no JSON", "hello\n", "failed"},
		{"nothing", "\n", "failed"},
		{"no request", "{}\n", "failed"},
		{"unknown request", `{"delete":{}}` + "\n", "failed"},
		{"two requests", `{"export":{"token":"` + name + `","by":"a","reason":"b"},"hold":{"token":"` + name + `","by":"a","reason":"b"}}` + "\n", "failed"},
		{"two values", `{"export":{"token":"` + name + `","by":"a","reason":"b"}} {}` + "\n", "failed"},
		{"no reason", `{"export":{"token":"` + name + `","by":"a"}}` + "\n", "failed"},
		{"a prefix", `{"export":{"token":"` + name[:20] + `","by":"a","reason":"b"}}` + "\n", "failed"},
		{"too long", strings.Repeat(" ", maxControlLine), "failed"},
		{"no such token", `{"export":{"token":"` + stop.Token{}.String() + `","by":"a","reason":"b"}}` + "\n", "not-found"},
	} {
		conn := connect(t, s)
		if _, err := conn.Write([]byte(test.line)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if !strings.HasPrefix(string(answer), `{"error":"`+test.code+`","message":"`) {
			t.Errorf("%s: answer %q, %v", test.name, answer, err)
		}
	}
	// Clients that say nothing, say half, or go before the answer, as many as are served at once.
	for i := range maxControlConns - 1 {
		conn := connect(t, s)
		if i%3 > 0 {
			conn.Write([]byte(`{"export":`))
		}
		if i%3 > 1 {
			conn.Close()
		}
	}
	if _, err := Export(t.Context(), s.dir, asking(token), Config{}); err != nil {
		t.Errorf("Export beside them: %v", err)
	}
}

func TestDamageWhileRunning(t *testing.T) {
	id := newIdentity(t)
	s := openTest(t, Config{}, id)
	token := keep(t, s, "report")
	keepTraceback(t, s, token, "asked")
	serve(t, s)
	all := entries(t, s.dir)
	flip := func(kind string) {
		e := all[slices.IndexFunc(all, func(e Entry) bool { return e.Type == kind })]
		b := make([]byte, 1)
		if _, err := s.open.file.ReadAt(b, e.Offset+recordHeader); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := s.open.file.WriteAt(b, e.Offset+recordHeader); err != nil {
			t.Fatal(err)
		}
	}
	flip("traceback")
	sealed, err := Export(t.Context(), s.dir, asking(token), Config{})
	if !errors.Is(err, ErrAltered) {
		t.Errorf("Export with a damaged trace-back: %v, want %v", err, ErrAltered)
	}
	if e, err := Unseal(sealed, id); err != nil || string(e.Report) != "report" || len(e.Tracebacks) != 0 {
		t.Errorf("what is sound: %+v, %v", e, err)
	}
	flip("report")
	sealed, err = Export(t.Context(), s.dir, asking(token), Config{})
	if !errors.Is(err, ErrAltered) || sealed != nil {
		t.Errorf("Export of a damaged report: %d bytes, %v, want %v", len(sealed), err, ErrAltered)
	}
}
