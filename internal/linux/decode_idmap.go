package linux

import (
	"bytes"
	"slices"
	"strconv"
)

// An idMap says which user or group ids a user namespace has (user_namespaces(7)). Of others the kernel shows the
// overflow id, which may be some user's as well.
type idMap struct {
	all      bool
	overflow uint32
}

// parseIDMap reads /proc/PID/uid_map and /proc/sys/kernel/overflowuid, or those of groups.
func parseIDMap(ids, overflow []byte) idMap {
	whole := slices.EqualFunc(bytes.Fields(ids), []string{"0", "0", "4294967295"}, func(b []byte, s string) bool { return string(b) == s })
	n, err := strconv.ParseUint(string(bytes.TrimSpace(overflow)), 10, 32)
	if err != nil {
		n = 65534 // include/linux/highuid.h
	}
	return idMap{all: whole, overflow: uint32(n)}
}

// known returns an id, or nil where it may stand for one that the namespace does not have.
func (m idMap) known(id uint32) *uint32 {
	if !m.all && id == m.overflow {
		return nil
	}
	return &id
}
