package openbsd

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
	"github.com/stopd/stopd/internal/thesistest"
)

// The reports of Appendix B, as an OpenBSD kernel would write what they are of.
func TestThesis(t *testing.T) {
	for _, name := range []string{"b1", "b2"} {
		t.Run(name, func(t *testing.T) {
			rec := thesistest.Recording(t, name)
			w := &writer{addresses: map[host.Object]uint64{}}
			var procs []byte
			users := map[uint32]posix.Account{}
			for _, p := range rec.Processes {
				procs = append(procs, w.proc(p)...)
				users[*p.EUID] = posix.Account{Name: p.EUser}
				for fd, d := range p.Descriptors {
					w.files = append(w.files, w.file(p, fd+3, d)...)
				}
			}
			f := rec.Facts
			boot := make([]byte, 16)
			binary.LittleEndian.PutUint64(boot, uint64(f.BootTime.Unix()))
			h := hostOf(w.files, procs, value{mibHostName, []byte(f.Name)}, value{mibRelease, []byte(f.Release)}, value{mibVersion, []byte(f.Kernel)}, value{mibBootTime, boot})
			h.names = posix.KnownAccounts(users)
			h.addresses = func() ([]netip.Addr, error) { return f.Addresses, nil }
			h.tail = func(path string, _, _ int) (b []byte, cut bool, err error) {
				for _, l := range rec.Logins {
					if path == utmpFile {
						b = append(b, record(l.Line, l.User, l.Host, l.Time.Unix())...)
					}
				}
				return b, false, nil
			}
			thesistest.Check(t, name, thesistest.Restated{Host: h, Objects: w.objects(), Unsaid: []string{"arguments", "environment", "working directory"}})
		})
	}
}

// A writer writes records as the kernel does. What the recording has by names has addresses there.
type writer struct {
	files     []byte
	addresses map[host.Object]uint64
}

func (w *writer) address(o host.Object) uint64 {
	if o == "" {
		return 0
	}
	if _, known := w.addresses[o]; !known {
		w.addresses[o] = 0xfffffd8000000000 + 0x80*uint64(len(w.addresses)+1)
	}
	return w.addresses[o]
}

// objects are the names of the recording by those of the decoders.
func (w *writer) objects() map[host.Object]host.Object {
	names := map[host.Object]host.Object{}
	for o, at := range w.addresses {
		class := "pipe"
		if strings.Contains(string(o), " ") { // a socket is named by its ends
			class = "socket"
		}
		names[address(class, at)] = o
	}
	return names
}

func (w *writer) proc(p host.Process) []byte {
	b := make([]byte, procSize)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(procPID, uint32(p.PID))
	put(procPPID, uint32(*p.PPID))
	put(procUID, *p.EUID)
	put(procRUID, *p.RUID)
	put(procTDev, noDevice)
	if p.TTY != "" {
		put(procTDev, majorSlave<<8|uint32(strings.IndexByte(ttySuffixes, p.TTY[len(p.TTY)-1])))
	}
	b[procPriority] = byte(*p.Priority)
	copy(b[procComm:procComm+24], p.Name)
	b[procValid] = 1
	put(procStart, 986130000) // of all: who came first the appendix does not say
	return b
}

func (w *writer) file(p host.Process, fd int, d host.Descriptor) []byte {
	b := make([]byte, fileSize)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put64 := func(at int, n uint64) { binary.LittleEndian.PutUint64(b[at:], n) }
	put64(fileAddr, 0xfffffd8100000000+uint64(len(w.files)))
	put(fileFlag, 3)
	put(fileUID, *p.EUID)
	put(filePID, uint32(p.PID))
	put(fileFD, uint32(fd))
	copy(b[fileComm:fileComm+24], p.Name)
	if d.Kind == host.Pipe {
		put(fileType, typePipe)
		put64(fileData, w.address(d.Object))
		put64(pipePeer, w.address(d.Peer))
		return b
	}
	put(fileType, typeSocket)
	put(sockType, socketStream)
	put(sockProto, protoTCP)
	put(sockFamily, familyInet)
	put64(sockPCB, w.address(d.Object))
	state := uint32(2)
	if d.Direction == host.Outbound {
		state |= stateConnectOut
	}
	put(sockState, state)
	for i, s := range tcpStates {
		if s == d.State {
			put(tcpState, uint32(i))
		}
	}
	putEnd := func(addr, port int, ap netip.AddrPort) {
		if ap.IsValid() {
			a := ap.Addr().As4()
			copy(b[addr:], a[:])
			binary.BigEndian.PutUint16(b[port:], ap.Port())
		}
	}
	putEnd(inpLAddr, inpLPort, d.Local)
	putEnd(inpFAddr, inpFPort, d.Remote)
	return b
}
