package posix

import (
	"encoding/binary"
	"fmt"
	"time"
)

// ParseTimeval parses a struct timeval of the BSDs with 64 bits each, least octet first.
func ParseTimeval(b []byte) (time.Time, error) {
	if len(b) != 16 {
		return time.Time{}, fmt.Errorf("parse timeval: %d octets", len(b))
	}
	return time.Unix(int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))*1000).UTC(), nil
}
