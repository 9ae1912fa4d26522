package freebsd

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
	"github.com/stopd/stopd/internal/thesistest"
)

// The hosts of Appendix B, as FreeBSD would tell of them: directions by listeners.
func TestThesis(t *testing.T) {
	for _, name := range []string{"b1", "b2"} {
		t.Run(name, func(t *testing.T) {
			rec := thesistest.Recording(t, name)
			addresses := map[host.Object]uint64{"": 0}
			address := func(o host.Object) uint64 {
				if _, known := addresses[o]; !known {
					addresses[o] = 0xfffff80000000000 + 0x80*uint64(len(addresses))
				}
				return addresses[o]
			}
			var procs []byte
			files := map[int][]byte{}
			users := map[uint32]posix.Account{}
			for _, p := range rec.Processes {
				procs = append(procs, procOf(p)...)
				users[*p.EUID] = posix.Account{Name: p.EUser}
				for i, d := range p.Descriptors {
					files[p.PID] = append(files[p.PID], fileOf(i+3, d, address)...)
				}
			}
			h := hostOf(procs, files)
			h.names = posix.KnownAccounts(users)
			h.addresses = func() ([]netip.Addr, error) { return rec.Facts.Addresses, nil }
			objects := map[host.Object]host.Object{}
			for o, at := range addresses {
				for _, class := range []string{"socket", "pipe"} {
					if at != 0 {
						objects[host.Object(fmt.Sprintf("%s:[%x]", class, at))] = o
					}
				}
			}
			thesistest.Check(t, name, thesistest.Restated{Host: h, Objects: objects, Unsaid: []string{"arguments", "environment"}, Untold: thesistest.Hints})
		})
	}
}

func procOf(p host.Process) []byte {
	b := make([]byte, procSize)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(0, procSize)
	put(procPID, uint32(p.PID))
	put(procPPID, uint32(*p.PPID))
	put(procUID, *p.EUID)
	put(procRUID, *p.RUID)
	put(procStart, 986130000) // of all: who came first the appendix does not say
	copy(b[procComm:procComm+20], p.Name)
	return b
}

func fileOf(fd int, d host.Descriptor, address func(host.Object) uint64) []byte {
	b := make([]byte, filePath+8)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(0, uint32(len(b)))
	put(fileFD, uint32(fd))
	put(fileFlags, 3)
	if d.Kind == host.Pipe {
		put(fileType, typePipe)
		binary.LittleEndian.PutUint64(b[pipeAddr:], address(d.Object))
		binary.LittleEndian.PutUint64(b[pipePeer:], address(d.Peer))
		return b
	}
	put(fileType, typeSocket)
	put(sockFamily, familyInet)
	put(sockType, socketStream)
	put(sockProto, protoTCP)
	binary.LittleEndian.PutUint64(b[sockPCB:], address(d.Object))
	for at, ap := range map[int]netip.AddrPort{sockLocal: d.Local, sockPeer: d.Remote} {
		if ap.IsValid() {
			a := ap.Addr().As4()
			b[at], b[at+1] = 16, familyInet
			binary.BigEndian.PutUint16(b[at+2:], ap.Port())
			copy(b[at+4:], a[:])
		}
	}
	return b
}
