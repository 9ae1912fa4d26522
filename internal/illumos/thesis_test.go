package illumos

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"testing"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
	"github.com/stopd/stopd/internal/thesistest"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// The hosts of Appendix B, as illumos would tell of them: directions by listeners, and both ends of a pipe alike.
func TestThesis(t *testing.T) {
	for _, name := range []string{"b1", "b2"} {
		t.Run(name, func(t *testing.T) {
			rec := thesistest.Recording(t, name)
			w := &writer{files: map[string][]byte{}, names: map[string][]string{}, inodes: map[host.Object]uint64{}, objects: map[host.Object]host.Object{}}
			users := map[uint32]posix.Account{}
			creators := map[uint16]int{} // of listeners, by their port
			for _, p := range rec.Processes {
				users[*p.EUID] = posix.Account{Name: p.EUser}
				for _, d := range p.Descriptors {
					if d.Listening() {
						creators[d.Local.Port()] = p.PID
					}
				}
			}
			for _, p := range rec.Processes {
				w.put(p, "psinfo", w.psinfo(p))
				for i, d := range p.Descriptors {
					b := w.fdinfo(i+3, d)
					w.put(p, "fdinfo/"+strconv.Itoa(i+3), b)
					if parsed, err := parseInfo(b); err != nil {
						t.Fatal(err)
					} else {
						w.objects[parsed.object()] = one(d)
					}
					w.connection(p, d, creators)
				}
			}
			h := made(t)
			read := h.read
			h.names = posix.KnownAccounts(users)
			h.read = func(p string) ([]byte, error) {
				if p == "/etc/name_to_major" {
					return read(p)
				}
				if b, ok := w.files[p]; ok {
					return b, nil
				}
				return nil, host.ErrNotFound
			}
			h.list = func(p string) ([]string, error) { return w.names[p], nil }
			h.network = func() ([]message, error) {
				return []message{{levelTCP, nameTable, record(t, "0-tcp")}, {levelTCP, nameConns, w.rows}}, nil
			}
			h.addresses = func() ([]netip.Addr, error) { return rec.Facts.Addresses, nil }
			thesistest.Check(t, name, thesistest.Restated{Host: h, Objects: w.objects, Unsaid: []string{"saved ids", "arguments", "environment"}, Untold: untold})
		})
	}
}

// one is the object of a descriptor; a pipe's two ends are one.
func one(d host.Descriptor) host.Object {
	if d.Kind == host.Pipe {
		return min(d.Object, d.Peer)
	}
	return d.Object
}

// untold takes out of a report what illumos does not tell: beside the directions of connections those of pipes, and so in which order
// and by which of two ways processes are found.
func untold(r *report.Report) {
	thesistest.Hints(r)
	for i := range r.Processes {
		p := &r.Processes[i]
		p.Exe = "" // which the appendix does not say
		p.Index, p.Via = 0, trace.Via{}
		for i := range p.Descriptors {
			d := &p.Descriptors[i]
			if d.Object = one(*d); d.Kind == host.Pipe {
				d.Peer = d.Object
			}
		}
	}
	slices.SortFunc(r.Processes, func(a, b trace.Process) int { return cmp.Compare(a.PID, b.PID) })
	for i := range r.Channels {
		c := &r.Channels[i]
		c.ID = 0
		slices.SortFunc(c.Ends, func(a, b trace.End) int { return cmp.Compare(a.PID, b.PID) })
	}
	slices.SortFunc(r.Channels, func(a, b trace.Channel) int {
		return slices.CompareFunc(a.Ends, b.Ends, func(a, b trace.End) int { return cmp.Compare(a.PID, b.PID) })
	})
}

// A writer writes what /proc and the network stack would hold.
type writer struct {
	files  map[string][]byte
	names  map[string][]string
	inodes map[host.Object]uint64
	// objects are the names of the recording by those of the decoders.
	objects map[host.Object]host.Object
	rows    []byte
}

func (w *writer) put(p host.Process, name string, b []byte) {
	at := procPath(p.PID, name)
	w.files[at] = b
	for at != "/proc" {
		dir := path.Dir(at)
		if !slices.Contains(w.names[dir], path.Base(at)) {
			w.names[dir] = append(w.names[dir], path.Base(at))
		}
		at = dir
	}
}

// inode is that of an object.
func (w *writer) inode(d host.Descriptor) uint64 {
	o := one(d)
	if w.inodes[o] == 0 {
		w.inodes[o] = uint64(len(w.inodes) + 1)
	}
	return w.inodes[o]
}

func (w *writer) psinfo(p host.Process) []byte {
	b := make([]byte, psinfoSize)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(psPID, uint32(p.PID))
	put(psPPID, uint32(*p.PPID))
	put(psUID, *p.RUID)
	put(psEUID, *p.EUID)
	put(psStart, 986130000) // of all: who came first the appendix does not say
	binary.LittleEndian.PutUint64(b[psTTY:], noDevice)
	copy(b[psName:psName+16], p.Name)
	return b
}

func (w *writer) fdinfo(fd int, d host.Descriptor) []byte {
	b := make([]byte, infoItems)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	put(infoFD, uint32(fd))
	put(infoFlags, 2)
	put(infoMajor, 559)
	put(infoPeerPID, 1<<32-1)
	binary.LittleEndian.PutUint64(b[infoInode:], w.inode(d))
	if d.Kind == host.Pipe {
		put(infoMode, modeFIFO)
		return append(b, make([]byte, itemHeader)...)
	}
	put(infoMode, modeSocket)
	item := func(kind uint32, data []byte) {
		b = binary.LittleEndian.AppendUint32(b, uint32(itemHeader+len(data)))
		b = append(binary.LittleEndian.AppendUint32(b, kind), data...)
	}
	address := func(ap netip.AddrPort) []byte {
		a := ap.Addr().As4()
		return append(append(binary.BigEndian.AppendUint16([]byte{familyInet, 0}, ap.Port()), a[:]...), make([]byte, 8)...)
	}
	item(itemName, address(d.Local))
	if d.Remote.IsValid() {
		item(itemPeerName, address(d.Remote))
	}
	item(itemType, []byte{socketStream, 0, 0, 0})
	return append(b, make([]byte, itemHeader)...)
}

// connection adds a row of the network stack. What was accepted is said to be of the listener's process.
func (w *writer) connection(p host.Process, d host.Descriptor, creators map[uint16]int) {
	if d.Kind != host.TCP {
		return
	}
	b := make([]byte, 172)
	put := func(at int, n uint32) { binary.LittleEndian.PutUint32(b[at:], n) }
	for n, s := range tcpStates {
		if s == d.State {
			put(connState, uint32(n))
		}
	}
	end := func(addr, port int, ap netip.AddrPort) {
		if ap.IsValid() {
			a := ap.Addr().As4()
			copy(b[addr:], a[:])
			put(port, uint32(ap.Port()))
		}
	}
	end(connLocal, connLPort, d.Local)
	end(connRemote, connRPort, d.Remote)
	put(connCreator, uint32(p.PID))
	if d.Direction == host.Inbound {
		if creators[d.Local.Port()] == 0 {
			panic(fmt.Sprintf("nobody listens on the port of %s", d.Local))
		}
		put(connCreator, uint32(creators[d.Local.Port()]))
	}
	w.rows = append(w.rows, b...)
}
