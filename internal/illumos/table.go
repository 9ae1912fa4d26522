package illumos

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// The tables are what the system tells of all processes at one look.
type tables struct {
	procs []proc
	// connections are by their ends.
	connections map[[2]netip.AddrPort]connection
	// listening are the ends of listeners, listeners the ports of each process.
	listening map[netip.AddrPort]bool
	listeners map[listener]bool
	untold    bool // what the network stack has
	pairs     posix.Pairs
	// apart are the processes that stand for those that share a socket, of sockets that unrelated processes have: see shared.
	apart map[host.Object][]int
	byPID map[int]psinfo
	// slaves and masters are the major numbers of pseudo terminals, from /etc/name_to_major; 0 is not known.
	slaves, masters uint32
}

// A proc is one process.
type proc struct {
	psinfo
	infos []info
}

// A listener is a port that a process listens on.
type listener struct {
	pid  int
	port uint16
}

// setConnections takes over the connections that the network stack tells.
func (t *tables) setConnections(cs []connection) {
	t.connections, t.listening, t.listeners = map[[2]netip.AddrPort]connection{}, map[netip.AddrPort]bool{}, map[listener]bool{}
	for _, c := range cs {
		if c.state == stateListen {
			t.listening[c.local], t.listeners[listener{c.creator, c.local.Port()}] = true, true
		} else {
			t.connections[[2]netip.AddrPort{c.local, c.remote}] = c
		}
	}
}

// direction tells who opened a connection: what the process of a listener on the local port is said to have created, that
// listener accepted. It is a hint: the process may have connected from its own port. Nothing tells of others.
func (t *tables) direction(c connection) (host.Direction, host.Source) {
	if c.creator != 0 && t.listeners[listener{c.creator, c.local.Port()}] {
		return host.Inbound, host.FromListener
	}
	return host.UnknownDirection, ""
}

// processes makes the processes with their descriptors, and the gaps in them.
func (t *tables) processes() ([]host.Process, []host.Gap) {
	t.separate()
	t.pairs = posix.Pairs{}
	unix := map[[2]int][]host.Object{} // by who has it, and whose its peer is said to be
	for _, p := range t.procs {
		for _, i := range p.infos {
			o := t.object(p, i)
			if k := i.protocol(); k != "" {
				t.pairs.Add(host.Descriptor{Kind: k, Object: o, Local: i.name.inet, Remote: i.remote()})
			}
			if at := [2]int{p.pid, i.peerPID}; i.isUnix() && i.peerPID > 0 && o != "" && len(unix[at]) < 2 && !slices.Contains(unix[at], o) { // two are too many
				unix[at] = append(unix[at], o)
			}
		}
	}
	ps := make([]host.Process, 0, len(t.procs))
	var gaps []host.Gap
	for _, p := range t.procs {
		hp := p.process(t)
		var ds posix.List
		for _, i := range p.infos {
			d := t.descriptor(i)
			if o := t.object(p, i); o != i.object() {
				d.Object = o
				gaps = append(gaps, host.Gap{PID: p.pid, What: fmt.Sprintf("holders of descriptor %d", i.fd),
					Why: "unrelated processes have a socket of which all is the same that the system tells: they are taken to have one each"})
			}
			switch {
			case i.protocol() != "":
				var err error
				if d.Peer, err = t.pairs.Peer(d); err != nil {
					gaps = append(gaps, host.Gap{PID: p.pid, What: otherEnd(i), Why: err.Error()})
				}
			case i.isUnix() && i.peerPID > 0:
				ours, theirs := unix[[2]int{p.pid, i.peerPID}], unix[[2]int{i.peerPID, p.pid}]
				why := "the system tells the process at the other end alone, and not which of its sockets it is"
				if len(ours) == 1 && len(theirs) == 1 && p.pid != i.peerPID {
					d.Peer, why = theirs[0], "it is told by the process that connected alone, which may have handed its socket on"
				}
				gaps = append(gaps, host.Gap{PID: p.pid, What: otherEnd(i), Why: why})
			}
			ds.Add(d)
		}
		hp.Descriptors = ds.All
		ps = append(ps, hp)
	}
	return ps, gaps
}

// separate finds the sockets without ends that processes have which do not descend from each other.
func (t *tables) separate() {
	t.apart, t.byPID = map[host.Object][]int{}, map[int]psinfo{}
	for _, p := range t.procs {
		t.byPID[p.pid] = p.psinfo
	}
	for _, p := range t.procs {
		for _, i := range p.infos {
			if o := i.object(); i.nameless() && o != "" && t.first(p.pid, o) == 0 {
				t.apart[o] = append(t.apart[o], p.pid)
			}
		}
	}
}

// nameless reports whether a descriptor is of a socket that has no ends of its own to be told by.
func (i info) nameless() bool { return i.mode&modeMask == modeSocket && i.protocol() == "" }

// first is the first process that has a socket and may have handed it to another by fork(2); 0 for none.
func (t *tables) first(pid int, o host.Object) int {
	for _, f := range t.apart[o] {
		if t.byPID[f].sid == t.byPID[pid].sid || t.descends(pid, f) || t.descends(f, pid) {
			return f
		}
	}
	return 0
}

// descends reports whether a process is another, or has it among its ancestors.
func (t *tables) descends(pid, from int) bool {
	for range len(t.byPID) {
		if pid == from {
			return true
		}
		p, ok := t.byPID[pid]
		if !ok || pid <= 1 {
			return false
		}
		pid = p.ppid
	}
	return false
}

// object names what a descriptor of a process is of. The number of a socket is a hash of 16 bits: where unrelated processes have one of
// which nothing else differs either, each has one of its own.
func (t *tables) object(p proc, i info) host.Object {
	o := i.object()
	if i.nameless() && len(t.apart[o]) > 1 {
		return host.Object(fmt.Sprintf("%s of %d", o, t.first(p.pid, o)))
	}
	return o
}

func (p proc) process(t *tables) host.Process {
	hp := host.Process{PID: p.pid, PPID: new(p.ppid), Name: p.name, RUID: new(p.ruid), EUID: new(p.euid), RGID: new(p.rgid), EGID: new(p.egid),
		Priority: new(p.priority), Nice: new(p.nice), Session: new(p.sid), PGRP: new(p.pgid), Start: p.start, TTY: t.ttyName(p.tty)}
	if !p.start.IsZero() {
		hp.StartTicks = uint64(p.start.UnixNano())
	}
	return hp
}

func (t *tables) ttyName(dev uint64) string {
	major, minor := uint32(dev>>32), uint32(dev)
	switch {
	case dev == noDevice:
		return ""
	case major == t.slaves && t.slaves != 0:
		return fmt.Sprintf("pts/%d", minor)
	}
	return fmt.Sprintf("%d,%d", major, minor)
}

func (i info) isUnix() bool {
	return i.mode&modeMask == modeSocket && (i.name.family == familyUnix || i.peer.family == familyUnix)
}

// protocol is the kind of an internet socket; empty for any other.
func (i info) protocol() host.Kind {
	if i.mode&modeMask != modeSocket || !i.name.inet.IsValid() {
		return ""
	}
	return map[uint32]host.Kind{socketStream: host.TCP, socketDatagram: host.UDP, socketRaw: host.Raw}[i.kind]
}

// remote is the other end of an internet socket that is connected.
func (i info) remote() netip.AddrPort {
	r := i.peer.inet
	if r.IsValid() && (r.Port() != 0 || i.protocol() == host.Raw && !r.Addr().IsUnspecified()) {
		return r
	}
	return netip.AddrPort{}
}

func otherEnd(i info) string { return fmt.Sprintf("other end of descriptor %d", i.fd) }

// object names what a descriptor is of: both ends of a pipe are one. The inode of a socket is 16 bits of its address (sockfs): its ends are
// what tells it from others.
func (i info) object() host.Object {
	class := map[uint32]string{modeFIFO: "fifo", modeSocket: "socket", modeRegular: "file"}[i.mode&modeMask]
	if class == "" || i.inode == 0 && class != "socket" {
		return ""
	}
	of := fmt.Sprintf("%d,%d:%d", i.major, i.minor, i.inode)
	switch k := i.protocol(); {
	case k != "":
		of += fmt.Sprintf(" %s %s", k, i.name.inet)
		if i.peer.inet.IsValid() {
			of += " " + i.peer.inet.String()
		}
	case class == "socket":
		of += fmt.Sprintf(" %d/%d %q %q %d", i.name.family, i.kind, i.name.path, i.peer.path, i.peerPID)
	}
	return host.Object(class + ":[" + of + "]")
}

func (i info) access() host.Mode {
	switch i.flags & 3 {
	case 0:
		return host.Read
	case 1:
		return host.Write
	case 2:
		return host.ReadWrite
	}
	return ""
}

func (t *tables) descriptor(i info) host.Descriptor {
	d := host.Descriptor{FDs: []int{i.fd}, Mode: i.access(), Inode: i.inode, Object: i.object(), Path: i.path}
	switch kind := i.mode & modeMask; {
	case i.isUnix():
		d.Kind, d.Path, d.PeerPath = host.Unix, i.name.path, i.peer.path
		d.Type = map[uint32]string{socketStream: "stream", socketDatagram: "dgram", socketSeqpacket: "seqpacket"}[i.kind]
	case i.protocol() != "":
		t.describeInet(&d, i)
	case kind == modeSocket:
		d.Kind, d.Path, d.Name = host.OtherSocket, "", fmt.Sprintf("family %d, type %d", i.name.family, i.kind)
	case kind == modeFIFO && i.path == "":
		d.Kind, d.Peer = host.Pipe, d.Object
	case kind == modeFIFO:
		d.Kind, d.Peer = host.FIFO, d.Object
	case kind == modeRegular:
		d.Kind, d.Peer = host.File, d.Object
	case kind == modeCharacter && t.slaves != 0 && (i.rmajor == t.slaves || i.rmajor == t.masters):
		d.Kind, d.Number = host.PTY, new(int(i.rminor))
		master, slave := host.Object(fmt.Sprintf("ptm:[%d]", i.rminor)), host.Object(fmt.Sprintf("pts:[%d]", i.rminor))
		if d.Side, d.Object, d.Peer = host.Slave, slave, master; i.rmajor == t.masters {
			d.Side, d.Object, d.Peer = host.Master, master, slave
		}
	default:
		d.Kind = host.File
	}
	return d
}

func (t *tables) describeInet(d *host.Descriptor, i info) {
	d.Kind, d.Path, d.Local = i.protocol(), "", i.name.inet
	d.Remote = i.remote()
	switch {
	case d.Kind != host.TCP && d.Remote.IsValid():
		d.State, d.Direction, d.DirectionSource = "ESTABLISHED", host.Outbound, host.FromAddress
	case d.Kind == host.TCP && d.Remote.IsValid() && t.pairs.One(*d) != nil:
		d.Direction = host.UnknownDirection // of which of them the network stack tells is not known
	case d.Kind == host.TCP && d.Remote.IsValid():
		c, ok := t.connections[[2]netip.AddrPort{d.Local, d.Remote}]
		d.State, d.Direction = tcpStates[c.state], host.UnknownDirection
		if ok {
			d.Direction, d.DirectionSource = t.direction(c)
		}
	case d.Kind == host.TCP && t.listening[d.Local]:
		d.State = tcpStates[stateListen]
	}
}

// parseMajors finds the major numbers of pseudo terminals in /etc/name_to_major.
func parseMajors(b []byte) (slaves, masters uint32) {
	for line := range strings.Lines(string(b)) {
		var driver string
		var n uint32
		if c, _ := fmt.Sscan(line, &driver, &n); c != 2 {
			continue
		}
		switch driver {
		case "pts":
			slaves = n
		case "ptm":
			masters = n
		}
	}
	return slaves, masters
}
