package openbsd

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/stopd/stopd/internal/posix"
)

// parseStrings parses the arguments or the environment of a process, as kern.procargs gives them: pointers into the reader's
// own memory, a null pointer, and the strings that they are to (sysctl_proc_args in kern/kern_sysctl.c).
func parseStrings(b []byte) ([]string, error) {
	var ss []string
	n := 0
	for ; ; n++ {
		if len(b) < 8*(n+1) {
			return nil, errors.New("parse strings: the pointers do not end")
		}
		if u64(b, 8*n) == 0 {
			break
		}
	}
	b = b[8*(n+1):]
	for range n {
		s, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			return nil, errors.New("parse strings: there are less than pointers")
		}
		ss, b = append(ss, posix.Text(s)), rest
	}
	return ss, nil
}

// parseDomain parses which routing domain a routing table is of (struct rt_tableinfo in net/route.h).
func parseDomain(b []byte) (uint32, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("parse routing table: %d octets", len(b))
	}
	return uint32(b[2]) | uint32(b[3])<<8, nil
}
