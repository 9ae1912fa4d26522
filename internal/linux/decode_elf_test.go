package linux

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"
)

// elf makes a file with one program header for notes, and the notes.
func elf(is64 bool, order binary.ByteOrder, notes []byte) []byte {
	b := make([]byte, 256)
	copy(b, "\x7fELF")
	b[4], b[5] = 1, 1
	if order == binary.BigEndian {
		b[5] = 2
	}
	const at, header = 256, 128
	if is64 {
		b[4] = 2
		order.PutUint64(b[32:], header)
		order.PutUint16(b[54:], 56)
		order.PutUint16(b[56:], 2) // the first is of another type
		order.PutUint32(b[header:], 1)
		order.PutUint32(b[header+56:], 4)
		order.PutUint64(b[header+56+8:], at)
		order.PutUint64(b[header+56+32:], uint64(len(notes)))
	} else {
		order.PutUint32(b[28:], header)
		order.PutUint16(b[42:], 32)
		order.PutUint16(b[44:], 1)
		order.PutUint32(b[header:], 4)
		order.PutUint32(b[header+4:], at)
		order.PutUint32(b[header+16:], uint32(len(notes)))
	}
	return append(b, notes...)
}

func note(order binary.ByteOrder, name string, typ uint32, desc []byte) []byte {
	b := make([]byte, 12)
	order.PutUint32(b, uint32(len(name)))
	order.PutUint32(b[4:], uint32(len(desc)))
	order.PutUint32(b[8:], typ)
	for _, s := range [][]byte{[]byte(name), desc} {
		b = append(b, s...)
		b = append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	return b
}

func TestBuildID(t *testing.T) {
	id := []byte("\x01\x02\x03\xfe\xff")
	for _, is64 := range []bool{false, true} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			notes := append(note(order, "GNU\x00", 1, []byte("abi")), note(order, "Go\x00\x00", 4, []byte("goid"))...)
			notes = append(notes, note(order, "GNU\x00", 3, id)...)
			if got := buildID(bytes.NewReader(elf(is64, order, notes))); got != hex.EncodeToString(id) {
				t.Errorf("64 bits %t, %v: %q, want %x", is64, order, got, id)
			}
		}
	}
	le := binary.LittleEndian
	good := elf(true, le, note(le, "GNU\x00", 3, id))
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                         nil,
		"short":                         good[:63],
		"a script":                      append([]byte("#!/bin/sh\n"), make([]byte, 100)...),
		"no such byte order":            change(func(b []byte) { b[5] = 3 }),
		"negative offset":               change(func(b []byte) { le.PutUint64(b[32:], 1<<63) }),
		"offset beyond the end":         change(func(b []byte) { le.PutUint64(b[32:], 1<<62) }),
		"headers of no size":            change(func(b []byte) { le.PutUint16(b[54:], 0) }),
		"short headers":                 change(func(b []byte) { le.PutUint16(b[54:], 40) }),
		"65535 headers":                 change(func(b []byte) { le.PutUint16(b[56:], 65535) }),
		"no headers":                    change(func(b []byte) { le.PutUint16(b[56:], 0) }),
		"notes beyond the end":          change(func(b []byte) { le.PutUint64(b[128+56+8:], 1<<40) }),
		"notes at a negative offset":    change(func(b []byte) { le.PutUint64(b[128+56+8:], 1<<63) }),
		"notes longer than the file":    change(func(b []byte) { le.PutUint64(b[128+56+32:], 1<<63) }),
		"no build id":                   elf(true, le, note(le, "GNU\x00", 1, id)),
		"build id of another name":      elf(true, le, note(le, "XXX\x00", 3, id)),
		"name longer than the notes":    change(func(b []byte) { le.PutUint32(b[256:], 1<<32-1) }),
		"build id longer than its note": change(func(b []byte) { le.PutUint32(b[260:], 1<<32-1) }),
		"cut inside the build id":       good[:len(good)-6],
	} {
		if got := buildID(bytes.NewReader(b)); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A meter counts what is read at once.
type meter struct {
	io.ReaderAt
	largest int
	reads   int
}

func (m *meter) ReadAt(b []byte, off int64) (int, error) {
	m.largest = max(m.largest, len(b))
	m.reads++
	return m.ReaderAt.ReadAt(b, off)
}

// FuzzBuildID: whoever runs the program wrote the file; it may not make the reader read or allocate more
// than a page at once, nor more than one for each program header.
func FuzzBuildID(f *testing.F) {
	f.Add(elf(true, binary.LittleEndian, note(binary.LittleEndian, "GNU\x00", 3, []byte("abcd"))))
	f.Add(elf(false, binary.BigEndian, note(binary.BigEndian, "GNU\x00", 3, []byte("abcd"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &meter{ReaderAt: bytes.NewReader(b)}
		id := buildID(m)
		if m.largest > 4096 || m.reads > 2+4096/32 || len(id) > 2*len(b) {
			t.Errorf("%d reads of up to %d octets, an id of %d digits", m.reads, m.largest, len(id))
		}
		if _, err := hex.DecodeString(id); err != nil {
			t.Error(err)
		}
	})
}
