package bpf

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// encode is the inverse of Decode.
func encode(r Record) []byte {
	e := binary.NativeEndian
	var b []byte
	for _, n := range []uint32{r.PID, r.TID, r.FD, r.Mode} {
		b = e.AppendUint32(b, n)
	}
	for _, n := range []uint64{r.File, r.Inode, r.Table, r.Number, r.Magic} {
		b = e.AppendUint64(b, n)
	}
	b = e.AppendUint32(e.AppendUint32(b, r.Device), r.Rdev)
	plain := byte(0)
	if r.Plain {
		plain = 1
	}
	b = append(e.AppendUint16(b, r.Type), plain, byte(r.Kind))
	for _, n := range []uint32{r.References, r.Waiters, r.Files} {
		b = e.AppendUint32(b, n)
	}
	return b
}

var records = []Record{
	{PID: 1, TID: 2, FD: 3, Mode: 3, File: 4, Inode: 5, Table: 6, Number: 7, Magic: 8, Device: 9, Rdev: 10, Type: 0o140777, Plain: true,
		Kind: Master, References: 11, Waiters: 12, Files: 13},
	{PID: 1<<32 - 1, File: 1<<64 - 1, Mode: Cut},
	{},
}

func TestDecode(t *testing.T) {
	var b []byte
	for _, r := range records {
		b = append(b, encode(r)...)
	}
	for cut := range b {
		var got []Record
		left := Decode(b[:cut], func(r *Record) { got = append(got, *r) })
		left = Decode(append(left[:len(left):len(left)], b[cut:]...), func(r *Record) { got = append(got, *r) })
		if d := cmp.Diff(records, got); d != "" || len(left) != 0 {
			t.Fatalf("in two parts, of %d octets and the rest, %d are left (-want +got):\n%s", cut, len(left), d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	for _, r := range records {
		f.Add(encode(r))
	}
	f.Add(append(encode(records[0]), encode(records[1])[:79]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		left := Decode(b, func(r *Record) {
			again := encode(*r)
			again[66] = b[n*recordSize+66] // anything but 0 is true
			if string(again) != string(b[n*recordSize:][:recordSize]) {
				t.Errorf("record %d is read as %+v", n, *r)
			}
			n++
		})
		if n*recordSize+len(left) != len(b) || len(left) >= recordSize {
			t.Errorf("of %d octets are %d records and %d octets left", len(b), n, len(left))
		}
	})
}
