package netlab

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// DropKeys takes keys of these names from the keyring of the user who calls: what programs left there for their next start outlives them, and a host
// (user-keyring(7)).
func DropKeys(of func(name string) bool) error {
	b := make([]byte, 1<<16) // of 16,384 keys
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, unix.KEY_SPEC_USER_KEYRING, b, 0)
	if err != nil {
		return nil // where keyrings are refused, as in containers, nobody left anything there
	}
	for b = b[:min(n, len(b))]; len(b) >= 4; b = b[4:] {
		id := int(int32(binary.NativeEndian.Uint32(b)))
		described, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
		if err != nil {
			continue // it has ended
		}
		if f := strings.SplitN(described, ";", 5); len(f) < 5 || !of(f[4]) { // type;uid;gid;permissions;name (keyctl_describe(3))
			continue
		}
		if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0); err != nil {
			return fmt.Errorf("drop key %d: %w", id, err)
		}
	}
	return nil
}
