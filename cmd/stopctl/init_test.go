package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stopd/stopd/internal/daemon"
)

// Whatever fails, and however far it came, nothing is left but what was there.
func TestInitWritesAllOrNothing(t *testing.T) {
	for name, in := range map[string]struct {
		// there stands in the way: files, directories that end in a slash, and links to nothing that end in an at sign
		there []string
		dir   string
	}{
		"the lock of the store is a directory": {[]string{"etc/", "host/store.lock/"}, "host"},
		"a parent is a file":                   {[]string{"host/here", "etc/"}, "host/here"},
		"the key's directory is a link":        {[]string{"host/", "keys@"}, "host"},
		"the key's directory is a file":        {[]string{"host/", "keys"}, "host"},
		"the configuration's is a file":        {[]string{"host/", "etc"}, "host"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range in.there {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				var err error
				switch f[len(f)-1] {
				case '/':
					err = os.MkdirAll(path, 0o700)
				case '@':
					err = os.Symlink("nothing", strings.TrimSuffix(path, "@"))
				default:
					err = os.WriteFile(path, []byte("mine"), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, root)
			dir := filepath.Join(root, in.dir)
			p := places{config: filepath.Join(root, "etc/stopd/stopd.toml"), store: filepath.Join(dir, "store"),
				logKey: filepath.Join(dir, "log.key"), tlsKey: filepath.Join(dir, "tls.key"), adminKey: filepath.Join(root, "keys/admin.key")}
			if _, err := p.write(daemon.Defaults()); err == nil {
				t.Fatal("it did not fail")
			}
			if d := cmp.Diff(before, tree(t, root)); d != "" {
				t.Errorf("before (-) and after (+):\n%s", d)
			}
		})
	}
	// And with nothing in the way all of it is there.
	p, err := placesOf(filepath.Join(t.TempDir(), "deep", "host"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.write(daemon.Defaults()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{p.config, p.store, p.logKey, p.tlsKey, p.adminKey} {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
}

func tree(t *testing.T, root string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
