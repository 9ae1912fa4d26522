package freebsd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd/internal/posix"
)

// Where struct kinfo_file has what is read (sys/user.h of FreeBSD 12 and later, with 64 bits). A record is as long as its first field
// says: the path at its end is cut.
const (
	fileType    = 4
	fileFD      = 8
	fileFlags   = 16
	filePath    = 368
	sockFamily  = 36
	sockType    = 40
	sockProto   = 44
	sockLocal   = 48
	sockPeer    = 176
	sockEnd     = 304
	sockPCB     = 304
	unpConn     = 320 // the peer's PCB
	sockSend    = 328 // state of the buffer, 16 bits
	sockReceive = 330
	vnodeType   = 32
	vnodeFSID   = 288
	vnodeRdev   = 296
	vnodeID     = 304
	pipeAddr    = 304
	pipePeer    = 312
	ptsDev      = 312
	processPID  = 304
	maxFile     = 1392
)

// Types of descriptors and of vnodes (sys/user.h).
const (
	typeVnode  = 1
	typeSocket = 2
	typePipe   = 3
	typeFIFO   = 4
	typePTS    = 10 // the master of a pseudo terminal

	vnodeRegular   = 1
	vnodeCharacter = 4
	vnodeFIFO      = 7
)

// typeNames are those of others, as they are listed.
var typeNames = map[int]string{5: "kqueue", 6: "crypto", 7: "mqueue", 8: "shm", 9: "sem", 11: "procdesc", 12: "device"}

// What is told by the same records with numbers below 0.
const (
	fdDirectory = -1
	fdProgram   = -5
	fdTerminal  = -6 // the controlling one
)

// Families, types and protocols of sockets, and states of their buffers (sys/socket.h, sys/sockbuf.h).
const (
	familyUnix  = 1
	familyInet  = 2
	familyInet6 = 28

	socketStream    = 1
	socketDatagram  = 2
	socketRaw       = 3
	socketSeqpacket = 5

	protoTCP = 6
	protoUDP = 17

	sendClosed    = 0x10 // SBS_CANTSENDMORE
	receiveClosed = 0x20 // SBS_CANTRCVMORE
)

// A file is one record of kern.proc.filedesc.
type file struct {
	kind, fd   int
	flags      uint32 // 1 is read, 2 is write
	path       string
	addr, peer uint64 // of a pipe or socket, and its peer
	vnode      vnode
	socket     socket
}

// A vnode is what a record says of a file or device; of the master of a terminal the device of its slave.
type vnode struct {
	kind           int
	fsid, rdev, id uint64
}

// A socket is what a record says of a socket.
type socket struct {
	family, kind, proto int
	local, remote       netip.AddrPort // not valid where there is none
	path, peerPath      string
	send, receive       uint16
}

// parseFiles parses what kern.proc.filedesc gives.
func parseFiles(b []byte) ([]file, error) {
	var fs []file
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("parse filedesc: %d octets at its end", len(b))
		}
		size := int(int32(u32(b, 0)))
		if size == 0 {
			return fs, nil // what is left of the buffer
		}
		if size < filePath || size > len(b) || size > maxFile {
			return nil, fmt.Errorf("parse filedesc: a record of %d octets", size)
		}
		fs = append(fs, parseFile(b[:size]))
		b = b[size:]
	}
	return fs, nil
}

func parseFile(b []byte) file {
	f := file{kind: signed(b, fileType), fd: signed(b, fileFD), flags: u32(b, fileFlags), path: str(b[filePath:])}
	switch f.kind {
	case typeVnode, typeFIFO:
		f.vnode = vnode{signed(b, vnodeType), u64(b, vnodeFSID), u64(b, vnodeRdev), u64(b, vnodeID)}
	case typePTS:
		f.vnode.rdev = u64(b, ptsDev)
	case typePipe:
		f.addr, f.peer = u64(b, pipeAddr), u64(b, pipePeer)
	case typeSocket:
		f.addr = u64(b, sockPCB)
		f.socket = parseSocket(b)
		if f.socket.family == familyUnix {
			f.peer = u64(b, unpConn)
		}
	}
	return f
}

func parseSocket(b []byte) socket {
	s := socket{family: signed(b, sockFamily), kind: signed(b, sockType), proto: signed(b, sockProto),
		send: binary.LittleEndian.Uint16(b[sockSend:]), receive: binary.LittleEndian.Uint16(b[sockReceive:])}
	local, peer := b[sockLocal:sockPeer], b[sockPeer:sockEnd]
	switch s.family {
	case familyUnix:
		s.path, s.peerPath = unixPath(local), unixPath(peer)
	case familyInet, familyInet6:
		s.local, s.remote = inet(local), inet(peer)
		if s.remote.Port() == 0 && (s.kind != socketRaw || !s.remote.IsValid() || s.remote.Addr().IsUnspecified()) {
			s.remote = netip.AddrPort{}
		}
	}
	return s
}

// inet reads a socket address of the internet (netinet/in.h): length, family, port, address; not valid for another.
func inet(b []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[2:])
	switch b[1] {
	case familyInet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case familyInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

func unixPath(b []byte) string {
	if b[1] != familyUnix || int(b[0]) > len(b) || b[0] < 2 {
		return ""
	}
	return str(b[2:b[0]])
}

func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
func signed(b []byte, at int) int { return int(int32(u32(b, at))) }

// str reads a string that ends in NUL, or fills its field.
func str(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return posix.Text(s)
}
