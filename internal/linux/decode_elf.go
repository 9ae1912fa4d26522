package linux

import (
	"encoding/binary"
	"encoding/hex"
	"io"
)

// buildID returns the GNU build id of an ELF file (elf(5)), in hexadecimal; empty where it has none. Whoever
// runs the program may have written the file, so no size in it is believed beyond a page.
func buildID(r io.ReaderAt) string {
	const page = 4096
	var h [64]byte
	if _, err := r.ReadAt(h[:], 0); err != nil || string(h[:4]) != "\x7fELF" || h[5] == 0 || h[5] > 2 {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	is64 := h[4] == 2
	off, size, n := int64(order.Uint32(h[28:])), int(order.Uint16(h[42:])), int(order.Uint16(h[44:]))
	if is64 {
		off, size, n = int64(order.Uint64(h[32:])), int(order.Uint16(h[54:])), int(order.Uint16(h[56:]))
	}
	if min := map[bool]int{false: 32, true: 56}[is64]; off < 0 || size < min || n*size > page {
		return ""
	}
	table := make([]byte, n*size)
	if _, err := r.ReadAt(table, off); err != nil {
		return ""
	}
	for ; len(table) >= size && size > 0; table = table[size:] {
		const ptNote = 4
		if order.Uint32(table) != ptNote {
			continue
		}
		at, length := int64(order.Uint32(table[4:])), uint64(order.Uint32(table[16:]))
		if is64 {
			at, length = int64(order.Uint64(table[8:])), order.Uint64(table[32:])
		}
		notes := make([]byte, min(length, page))
		if _, err := r.ReadAt(notes, max(at, 0)); err != nil {
			continue
		}
		if id := noteID(notes, order); id != "" {
			return id
		}
	}
	return ""
}

// noteID finds the description of the note of type NT_GNU_BUILD_ID.
func noteID(b []byte, order binary.ByteOrder) string {
	const header, typeBuildID = 12, 3
	for len(b) >= header {
		name, desc, typ := uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint32(b[8:])
		from := header + (name+3)&^3
		if from+desc > uint64(len(b)) {
			return ""
		}
		if typ == typeBuildID && name == 4 && string(b[header:header+4]) == "GNU\x00" {
			return hex.EncodeToString(b[from : from+desc])
		}
		b = b[min(from+(desc+3)&^3, uint64(len(b))):]
	}
	return ""
}
