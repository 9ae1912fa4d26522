package bpf

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeCall(f *testing.F) {
	e := binary.NativeEndian
	one := e.AppendUint64(nil, 11)
	one = e.AppendUint64(one, 22)
	for _, v := range []uint32{33, 44, 55, 66} {
		one = e.AppendUint32(one, v)
	}
	one = append(one, 3, 0, 0, 0, 0, 0, 0, 0)
	c, err := DecodeCall(one)
	if err != nil {
		f.Fatal(err)
	}
	want := Call{At: 11, Socket: 22, Thread: 33, Octets: 44, Taken: 55, Waits: 66, Kind: Advanced}
	if d := cmp.Diff(want, c); d != "" {
		f.Errorf("call (-want +got):\n%s", d)
	}
	f.Add(one)
	f.Add(one[:39])
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCall(b)
		if ok := len(b) >= callSize && b[32] >= 1 && b[32] <= 3; ok != (err == nil) {
			t.Errorf("%d octets: %+v, %v", len(b), c, err)
		}
	})
}
