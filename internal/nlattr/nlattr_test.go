package nlattr

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestEach(t *testing.T) {
	b := Append(Append(Append(nil, 1, []byte{1}), 2|Nested, Append(nil, 3, []byte("four"))), 4, nil)
	var got []string
	seen := func(typ uint16, v []byte) { got = append(got, fmt.Sprintf("%d %x", typ, v)) }
	if err := Each(b, seen); err != nil {
		t.Fatal(err)
	}
	inner := fmt.Sprintf("2 %x", Append(nil, 3, []byte("four")))
	if want := []string{"1 01", inner, "4 "}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for name, b := range map[string][]byte{"cut": Append(nil, 1, []byte("four"))[:6], "shorter than its head": {3, 0, 1, 0}} {
		if err := Each(b, func(uint16, []byte) {}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzEach(f *testing.F) {
	f.Add(Append(Append(nil, 1, []byte{1}), 2, []byte("four")))
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		n := 0
		err := Each(b, func(typ uint16, v []byte) { again, n = Append(again, typ, v), n+len(v) })
		if err != nil {
			return
		}
		if n > len(b) {
			t.Errorf("%d octets of values in %d", n, len(b))
		}
		if err := Each(again, func(uint16, []byte) {}); err != nil {
			t.Errorf("what was read, written again: %v", err)
		}
	})
}
