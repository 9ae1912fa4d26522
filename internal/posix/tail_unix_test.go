//go:build unix

package posix

import (
	"fmt"
	"os"
	"path/filepath"

	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var all []byte
	for i := range 10 {
		all = fmt.Appendf(all, "%04d", i)
	}
	if err := os.WriteFile(path, append(all, 'x'), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		limit int
		want  string
		cut   bool
	}{{1 << 20, string(all) + "x", false}, {41, string(all) + "x", false}, {12, "00080009x", true}, {8, "0009x", true}} {
		b, cut, err := Tail(path, tt.limit, 4)
		if d := cmp.Diff(tt.want, string(b)); d != "" || cut != tt.cut || err != nil {
			t.Errorf("%d: cut %t, %v (-want +got):\n%s", tt.limit, cut, err, d)
		}
	}
	fifo := path + ".fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{fifo, filepath.Dir(path)} {
		if b, _, err := Tail(p, 100, 4); err == nil {
			t.Errorf("%s: %q", p, b)
		}
	}
}
