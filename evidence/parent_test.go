package evidence

import (
	"errors"
	"path/filepath"
	"testing"
)

// A store that is there is opened by who cannot see what it lies in; one that is not is not made there.
func TestParentUnseen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	d := systemDisk
	c := configFor(Config{disk: &d}, newIdentity(t))
	unseen := errors.New("no such directory")
	d.makeDir = func(string) error { return unseen }
	if s, err := openStore(t.Context(), dir, c, true); !errors.Is(err, unseen) {
		t.Errorf("%v, %v", s, err)
	}
	if err := makeDir(dir); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(t.Context(), dir, c, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
