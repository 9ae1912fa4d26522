package posix

import (
	"testing"
	"time"
)

func TestParseTimeval(t *testing.T) {
	got, err := ParseTimeval([]byte{154, 131, 3, 107, 0, 0, 0, 0, 109, 53, 14, 0, 0, 0, 0, 0})
	if want := time.Date(2026, 11, 23, 0, 6, 50, 931181000, time.UTC); err != nil || !got.Equal(want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if got, err := ParseTimeval(make([]byte, 8)); err == nil {
		t.Error(got)
	}
}
