package evidence

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is measured is where the store would be, and nothing is left of it.
func TestMeasureSync(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "not", "there", "yet")} {
		got, err := MeasureSync(path)
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil || got.Writes < 1 || got.Median <= 0 || got.Longest < got.Median {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left is %v, %v", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := MeasureSync(file); err == nil || got != (SyncTime{}) {
		t.Errorf("of a file: %+v, %v", got, err)
	}
}
