package translog

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLeaf(t *testing.T) {
	want := Leaf{time.Date(2026, 11, 23, 1, 2, 3, 456789012, time.UTC), [32]byte{1}, [32]byte{31: 2}}
	b := want.Append(nil)
	if got := fmt.Sprintf("%x", b); got != fmt.Sprintf("18ea86e5e7e5ba1401%062x%064x", 0, 2) {
		t.Errorf("leaf %s", got)
	}
	got, err := ParseLeaf(b)
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, d)
	}
	if _, err := ParseLeaf(b[1:]); err == nil {
		t.Error("a short leaf was parsed")
	}
}
