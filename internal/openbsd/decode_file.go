package openbsd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/stopd/stopd/internal/posix"
)

// Types of open files (sys/file.h).
const (
	typeVnode  = 1
	typeSocket = 2
	typePipe   = 3
	typeKqueue = 4
)

// Types of vnodes (sys/vnode.h).
const (
	vnodeRegular   = 1
	vnodeCharacter = 4
	vnodeFIFO      = 7
)

// Families, types and protocols of sockets (sys/socket.h, netinet/in.h).
const (
	familyUnix  = 1
	familyInet  = 2
	familyInet6 = 24

	socketRaw       = 3
	socketStream    = 1
	socketDatagram  = 2
	socketSeqpacket = 5

	protoTCP = 6
	protoUDP = 17
)

// States of sockets (sys/socketvar.h).
const (
	stateSendClosed    = 0x10   // SS_CANTSENDMORE
	stateReceiveClosed = 0x20   // SS_CANTRCVMORE
	stateConnectOut    = 0x1000 // SS_CONNECTOUT: this end opened the connection
)

// hidden is the PCB of every socket for who is not root.
const hidden = 1<<64 - 1

// A file is one record of kern.file: a descriptor of a process, or by a negative number its program or a directory of it; of a
// listing of sockets, a socket.
type file struct {
	pid, fd  int
	comm     string
	addr     uint64 // 0 for who is not root
	flag     uint32
	kind     uint32
	uid      uint32 // who opened it
	waiting  uint32 // descriptors that wait in a UNIX socket
	data     uint64
	pipePeer uint64
	vnode    vnode
	socket   socket
}

// A vnode is what a record says of a file or device.
type vnode struct {
	kind, rdev, fsid uint32
	id               uint64
	mount            string
}

// A socket is what a record says of a socket.
type socket struct {
	kind, state, proto, family uint32
	pcb, conn                  uint64
	local, remote              netip.AddrPort // not valid where there is none
	table                      uint32         // routing table
	tcp                        uint32         // state of TCP
	path                       string
}

// parseFiles parses what kern.file gives: records of fileSize octets.
func parseFiles(b []byte) ([]file, error) {
	if len(b)%fileSize != 0 {
		return nil, fmt.Errorf("parse kern.file: %d octets are no whole records of %d", len(b), fileSize)
	}
	fs := make([]file, 0, len(b)/fileSize)
	for ; len(b) > 0; b = b[fileSize:] {
		fs = append(fs, parseFile(b[:fileSize]))
	}
	return fs, nil
}

func parseFile(b []byte) file {
	f := file{
		pid: int(int32(u32(b, filePID))), fd: int(int32(u32(b, fileFD))), comm: str(b[fileComm : fileComm+24]),
		addr: u64(b, fileAddr), flag: u32(b, fileFlag), kind: u32(b, fileType), uid: u32(b, fileUID), waiting: u32(b, fileMsgCount), data: u64(b, fileData),
	}
	switch f.kind {
	case typeVnode:
		f.vnode = vnode{kind: u32(b, fileVType), rdev: u32(b, fileRdev), fsid: u32(b, fileFSID), id: u64(b, fileID), mount: str(b[fileMount : fileMount+96])}
	case typeSocket:
		f.socket = parseSocket(b)
	case typePipe:
		f.pipePeer = u64(b, pipePeer)
	}
	return f
}

func parseSocket(b []byte) socket {
	s := socket{kind: u32(b, sockType), state: u32(b, sockState), proto: u32(b, sockProto), family: u32(b, sockFamily), pcb: u64(b, sockPCB)}
	if s.pcb == 0 { // it is closed, and has nothing any more
		return s
	}
	switch s.family {
	case familyUnix:
		s.conn, s.path = u64(b, unpConn), str(b[unpPath:unpPath+104])
	case familyInet, familyInet6:
		s.local, s.remote = end(b, s.family, inpLAddr, inpLPort), end(b, s.family, inpFAddr, inpFPort)
		s.table = u32(b, inpTable)
		if s.kind == socketRaw {
			s.proto = u32(b, inpProto)
		}
		if s.proto == protoTCP && s.kind == socketStream {
			s.tcp = u32(b, tcpState)
		}
		if s.remote.Port() == 0 && (s.kind != socketRaw || s.remote.Addr().IsUnspecified()) {
			s.remote = netip.AddrPort{}
		}
	}
	return s
}

// end reads an address and its port.
func end(b []byte, family uint32, addr, port int) netip.AddrPort {
	p := binary.BigEndian.Uint16(b[port:])
	if family == familyInet {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[addr:addr+4])), p)
	}
	a := [16]byte(b[addr : addr+16])
	if netip.AddrFrom16(a).IsLinkLocalUnicast() {
		a[2], a[3] = 0, 0 // where the kernel keeps the number of the link (in6_embedscope)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a), p)
}

func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// str reads a string that ends in NUL, or fills its field.
func str(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return posix.Text(s)
}
