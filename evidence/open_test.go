package evidence

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
)

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	if err := Create(dir, newLogKey(t)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the store: %v, %v", info.Mode(), err)
	}
	if got := types(entries(t, dir)); !slices.Equal(got, []string{"state"}) {
		t.Errorf("a new store holds %v", got)
	}
	if err := Create(dir, newLogKey(t)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create again: %v, want %v", err, fs.ErrExist)
	}
	s := openAt(t, dir, Config{}, newIdentity(t))
	if err := Create(dir, newLogKey(t)); !errors.Is(err, ErrLocked) {
		t.Errorf("Create while open: %v, want %v", err, ErrLocked)
	}
	closeStore(t, s)
}

func TestOpenRefuses(t *testing.T) {
	id := newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	later := t.TempDir()
	if err := os.WriteFile(segmentPath(later, 1), []byte(segmentMagic+"\x00\x00\x00\x03"), 0o600); err != nil {
		t.Fatal(err)
	}
	earlier := t.TempDir()
	if err := os.WriteFile(segmentPath(earlier, 1), []byte(segmentMagic+"\x00\x00\x00\x01"), 0o600); err != nil {
		t.Fatal(err)
	}
	held := openTest(t, Config{}, id)
	recipients := []age.Recipient{id.Recipient()}
	for _, test := range []struct {
		name, dir  string
		recipients []age.Recipient
		want       error // nil: any
	}{
		{"no recipients", filepath.Join(t.TempDir(), "store"), nil, nil},
		{"mixed recipients", filepath.Join(t.TempDir(), "store"), append(recipients, hybrid.Recipient()), nil},
		{"no store", foreign, recipients, nil},
		{"later version", later, recipients, ErrVersion},
		{"earlier version", earlier, recipients, ErrVersion},
		{"locked", held.dir, recipients, ErrLocked},
	} {
		c := configFor(Config{})
		c.Recipients = test.recipients
		s, err := Open(test.dir, c)
		if err == nil {
			s.Close()
		}
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if err := List(later, func(Entry) error { return nil }); !errors.Is(err, ErrVersion) {
		t.Errorf("List of a later version: %v, want %v", err, ErrVersion)
	}
	sealed := export(t, held, keep(t, held, "report"))
	sealed[exportHeader-1]++
	if _, err := Unseal(sealed, id); !errors.Is(err, ErrVersion) {
		t.Errorf("Unseal of a later version: %v, want %v", err, ErrVersion)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(held.dir, link); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(link, configFor(Config{}, id)); !errors.Is(err, ErrLocked) {
		s.Close()
		t.Errorf("Open through a symbolic link: %v, want %v", err, ErrLocked)
	}
	beside, err := filepath.EvalSymlinks(filepath.Dir(held.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{held.dir, link} {
		if got, err := LogKeyPath(dir); err != nil || got != filepath.Join(beside, "log.key") {
			t.Errorf("LogKeyPath(%q) = %q, %v", dir, got, err)
		}
	}
}
