package linux

import (
	"encoding/hex"
	"errors"
	"syscall"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	message := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// struct nlmsghdr: length, type, flags, sequence, port; of a little-endian machine.
	for name, c := range map[string]struct {
		b    []byte
		want string
		err  error
	}{
		"payload":          {message("14000000" + "0001" + "0200" + "07000000" + "01000000" + "02000000"), "\x02\x00\x00\x00", nil},
		"refused":          {message("14000000" + "0200" + "0000" + "07000000" + "01000000" + "ffffffff"), "", syscall.EPERM},
		"another sequence": {message("14000000" + "0001" + "0200" + "08000000" + "01000000" + "02000000"), "", errSyntax},
		"cut":              {message("18000000" + "0001" + "0200" + "07000000" + "01000000" + "02000000"), "", errSyntax},
		"empty":            {nil, "", errSyntax},
	} {
		if got, err := parseAnswer(c.b, 7); string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseAnswer(b, 0) })
}
