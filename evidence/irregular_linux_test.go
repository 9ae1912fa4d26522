package evidence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
)

// Who is root may put what he likes in a file's place. Neither an audit nor the next start waits for ever, or reads without an end.
func TestNoRegularFiles(t *testing.T) {
	a := newAuditStore(t)
	var files []string
	err := filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, a.dir+"/"))
		}
		return err
	})
	if err != nil || len(files) < 8 {
		t.Fatalf("files %q, %v", files, err)
	}
	key := a.key
	c := Config{Recipients: []age.Recipient{newIdentity(t).Recipient()}, LogKey: &key, AllowVolatile: true}
	for kind, put := range map[string]func(path string) error{
		"FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		for _, name := range files {
			t.Run(kind+" for "+name, func(t *testing.T) {
				b := a
				b.dir = filepath.Join(t.TempDir(), "store")
				path := filepath.Join(b.dir, name)
				err := os.CopyFS(b.dir, os.DirFS(a.dir))
				if err = errors.Join(err, os.Remove(path), put(path)); err != nil {
					t.Fatal(err)
				}
				inTime(t, "audit", func() {
					found := false
					for _, f := range b.audit(t).Findings {
						found = found || f.Path == name
					}
					if !found {
						t.Errorf("the audit has no finding of it")
					}
				})
				inTime(t, "list", func() {
					if err := List(b.dir, func(Entry) error { return nil }); (err != nil) != strings.HasSuffix(name, segmentSuffix) {
						t.Errorf("list: %v", err)
					}
				})
				inTime(t, "open", func() {
					s, err := Open(b.dir, c)
					if err == nil {
						closeStore(t, s)
					}
					if !errors.Is(err, ErrAltered) {
						t.Errorf("open: %v, want %v", err, ErrAltered)
					}
				})
			})
		}
	}
}

// inTime does something that must not wait.
func inTime(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s waits for ever", what)
	}
}
