package linux

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// parseAnswer returns the payload of the message (struct nlmsghdr, netlink(7)) that answers a request. An error
// that the kernel answered is a syscall.Errno.
func parseAnswer(b []byte, sequence uint32) ([]byte, error) {
	const header, nlmsgError = 16, 2
	if len(b) < header {
		return nil, fmt.Errorf("parse nlmsghdr: %w", errSyntax)
	}
	size := binary.NativeEndian.Uint32(b)
	if size < header || uint64(size) > uint64(len(b)) || binary.NativeEndian.Uint32(b[8:]) != sequence {
		return nil, fmt.Errorf("parse nlmsghdr: %w", errSyntax)
	}
	payload := b[header:size]
	if binary.NativeEndian.Uint16(b[4:]) != nlmsgError {
		return payload, nil
	}
	if len(payload) < 4 {
		return nil, fmt.Errorf("parse nlmsgerr: %w", errSyntax)
	}
	if e := int32(binary.NativeEndian.Uint32(payload)); e < 0 {
		return nil, syscall.Errno(-e)
	}
	return nil, fmt.Errorf("parse nlmsgerr: no answer: %w", errSyntax)
}
