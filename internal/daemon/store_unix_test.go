//go:build unix

package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// The store's directory and lock are made before a keeper is confined, and not where there is no place for them.
func TestMakeStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for range 2 {
		if err := makeStore(dir); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	if st, err := os.Stat(dir + ".lock"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	none := filepath.Join(dir, "no", "store")
	if err := makeStore(none); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(none)); err == nil {
		t.Error("made the parent")
	}
}
