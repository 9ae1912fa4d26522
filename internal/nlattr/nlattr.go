// Package nlattr reads and writes netlink attributes (struct nlattr, linux/netlink.h). It is pure.
package nlattr

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrSyntax says that octets are not what they should be.
var ErrSyntax = errors.New("syntax error")

// Nested marks the type of an attribute that is made of attributes (NLA_F_NESTED).
const Nested = 0x8000

// Append appends an attribute, and fills it up to four octets.
func Append(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// Each calls yield for each attribute, with its type less the flags.
func Each(b []byte, yield func(typ uint16, value []byte)) error {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return fmt.Errorf("attribute of %d octets: %w", n, ErrSyntax)
		}
		yield(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
