package illumos

import (
	"errors"
	"fmt"
	"net/netip"
)

// An own is what other calls than /proc say of a descriptor of this process: fstat(2), fcntl(2), and of a socket its ends and type.
type own struct {
	fd            int
	mode          uint32
	inode         uint64
	dev, rdev     uint64 // 32 bits of major number, 32 of minor
	access        uint32 // O_ACCMODE
	kind          uint32
	local, remote netip.AddrPort
}

// compare holds a record of /proc to what other calls say: the structures are those of illumos, and nobody has seen those of Solaris. The
// error wraps [errors.ErrUnsupported].
func (o own) compare(i info) error {
	said := own{fd: i.fd, mode: i.mode, inode: i.inode, dev: uint64(i.major)<<32 | uint64(i.minor), access: i.flags & 3, kind: i.kind, local: i.name.inet, remote: i.remote()}
	if o.mode&modeMask == modeCharacter {
		said.rdev = uint64(i.rmajor)<<32 | uint64(i.rminor)
	} else {
		o.rdev = 0
	}
	return same("fdinfo", said, o)
}

// compareIDs holds the record of this process to what it knows of itself.
func (p psinfo) compareIDs(o psinfo) error {
	return same("psinfo", psinfo{pid: p.pid, ppid: p.ppid, pgid: p.pgid, sid: p.sid, ruid: p.ruid, euid: p.euid, rgid: p.rgid, egid: p.egid}, o)
}

func same[T comparable](what string, got, want T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("records of /proc (%s) are not those that this version knows: %+v is %+v there: %w", what, want, got, errors.ErrUnsupported)
}
