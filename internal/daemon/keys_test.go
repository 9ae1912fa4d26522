package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
)

// A private key is found by what it opens, not by its name, and no other key is.
func TestPrivateKeysOnTheHost(t *testing.T) {
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"admin.key":    "# the administrator's key\n# public key: " + mine.Recipient().String() + "\n" + mine.String() + "\n",
		"holiday.jpg":  "  " + hybrid.String() + "\n",
		"other.key":    other.String() + "\n",
		"public":       mine.Recipient().String() + "\n",
		"rubbish":      "AGE-SECRET-KEY-1\nAGE-SECRET-KEY-1QQQQ\n\x00\xff",
		"windows.text": "x\r\n" + mine.String() + "\r\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	got := privateKeys([]string{dir, filepath.Join(dir, "missing")}, []string{mine.Recipient().String(), hybrid.Recipient().String()})
	slices.Sort(got)
	want := []string{filepath.Join(dir, "admin.key"), filepath.Join(dir, "holiday.jpg"), filepath.Join(dir, "windows.text")}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if places := keyPlaces(filepath.Join(dir, "stopd.toml"), Config{Store: filepath.Join(dir, "store")}); places[0] != dir || slices.Index(places[1:], dir) >= 0 {
		t.Errorf("places are %q", places)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "store"), link); err != nil {
		t.Fatal(err)
	}
	if places := keyPlaces("/etc/stopd/stopd.toml", Config{Store: link}); !slices.Contains(places, filepath.Dir(link)) || !slices.Contains(places, dir) {
		t.Errorf("places of a store behind a symbolic link are %q", places)
	}
}
