package linux

import (
	"bytes"
	"encoding/binary"
)

// dirents calls yield with each name of a buffer of getdents64(2) but the dots, until it returns false;
// then it returns the offset to go on from, and false.
func dirents(b []byte, yield func(name []byte) bool) (int64, bool) {
	for len(b) >= 19 {
		length := int(binary.NativeEndian.Uint16(b[16:]))
		if length < 19 || length > len(b) {
			break
		}
		name := b[19:length]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if len(name) > 0 && name[0] != '.' && !yield(name) {
			return int64(binary.NativeEndian.Uint64(b[8:])), false
		}
		b = b[length:]
	}
	return 0, true
}

// number reads the name of a process, thread or descriptor, which /proc gives in decimal.
func number(name []byte) (int, bool) {
	if len(name) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range name {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(name) > 0
}
