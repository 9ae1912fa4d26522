package illumos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd/internal/posix"
)

// Where prfdinfo_t has what is read (sys/procfs.h of illumos, the same with 32 and 64 bits), and where its items begin.
const (
	infoFD       = 0
	infoMode     = 4
	infoInode    = 8
	infoMajor    = 40
	infoMinor    = 44
	infoRMajor   = 48
	infoRMinor   = 52
	infoFlags    = 56
	infoPeerPID  = 76
	infoItems    = 196
	itemHeader   = 8 // the size, with the header, and the type; a size of 0 ends the items
	itemPath     = 0
	itemName     = 1
	itemPeerName = 2
	itemType     = 9
)

// Types of files (sys/stat.h).
const (
	modeMask      = 0xf000
	modeFIFO      = 0x1000
	modeCharacter = 0x2000
	modeRegular   = 0x8000
	modeSocket    = 0xc000
)

// Families and types of sockets (sys/socket.h).
const (
	familyUnix  = 1
	familyInet  = 2
	familyInet6 = 26

	socketDatagram  = 1
	socketStream    = 2
	socketRaw       = 4
	socketSeqpacket = 6
)

// An info is what /proc/PID/fdinfo/N says of a descriptor.
type info struct {
	fd                           int
	mode                         uint32
	inode                        uint64
	major, minor, rmajor, rminor uint32
	flags                        uint32
	peerPID                      int // -1 for none
	path                         string
	name, peer                   name
	kind                         uint32 // type of the socket
}

// A name is an address of a socket; the zero name is none.
type name struct {
	family uint16
	inet   netip.AddrPort
	path   string
}

// parseInfo parses a prfdinfo_t with its items.
func parseInfo(b []byte) (info, error) {
	if len(b) < infoItems {
		return info{}, fmt.Errorf("parse fdinfo: %d octets are less than its header", len(b))
	}
	i := info{fd: int(int32(u32(b, infoFD))), mode: u32(b, infoMode), inode: u64(b, infoInode), major: u32(b, infoMajor), minor: u32(b, infoMinor),
		rmajor: u32(b, infoRMajor), rminor: u32(b, infoRMinor), flags: u32(b, infoFlags), peerPID: int(int32(u32(b, infoPeerPID)))}
	for b = b[infoItems:]; ; {
		if len(b) < 4 {
			return info{}, errors.New("parse fdinfo: its items do not end")
		}
		size := int(u32(b, 0))
		if size == 0 {
			return i, nil
		}
		if size < itemHeader || size > len(b) {
			return info{}, fmt.Errorf("parse fdinfo: an item of %d octets", size)
		}
		data := b[itemHeader:size]
		switch u32(b, 4) {
		case itemPath:
			i.path = str(data)
		case itemName:
			i.name = parseName(data)
		case itemPeerName:
			i.peer = parseName(data)
		case itemType:
			if len(data) >= 4 {
				i.kind = u32(data, 0)
			}
		}
		b = b[size:]
	}
}

// parseName parses a socket address; the zero name where it is of a family without meaning here, or short.
func parseName(b []byte) name {
	if len(b) < 2 {
		return name{}
	}
	n := name{family: binary.LittleEndian.Uint16(b)}
	switch {
	case n.family == familyUnix:
		n.path = str(b[2:])
	case n.family == familyInet && len(b) >= 8:
		n.inet = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case n.family == familyInet6 && len(b) >= 24:
		n.inet = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), binary.BigEndian.Uint16(b[2:]))
	default:
		return name{}
	}
	return n
}

func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// str reads a string that ends in NUL, or fills its field.
func str(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return posix.Text(s)
}
