package completion

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Hold holds the files of a program in a directory to what Write returns, or writes them anew.
func (p Program) Hold(t *testing.T, dir string, update bool) {
	t.Helper()
	for _, shell := range Shells {
		path, want := filepath.Join(dir, p.Name+"."+shell), p.Write(shell)
		if update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Errorf("%s is not of the program's flags (-); make completions writes it:\n%s", path, d)
		}
	}
}
