package openbsd

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// The tables are what the kernel tells of all processes at once.
type tables struct {
	files []file
	procs []proc
	// domains are the routing domains of routing tables, but for table 0, which is of domain 0.
	domains map[uint32]uint32
	// own are the host's addresses, devices the paths below /dev by device number.
	own     []netip.Addr
	devices map[uint32]string

	connected map[ends]host.Object
}

// processes makes the processes with their descriptors, in the kernel's order, and what it does not tell of them.
func (t *tables) processes() ([]host.Process, []host.Gap) {
	t.connected = map[ends]host.Object{}
	byPID := map[int][]file{}
	for _, f := range t.files {
		byPID[f.pid] = append(byPID[f.pid], f)
		if e := t.ends(f.socket); f.kind == typeSocket && e.kind != "" {
			t.connected[e] = f.socket.object()
		}
	}
	ps := make([]host.Process, 0, len(t.procs))
	var gaps []host.Gap
	for _, p := range t.procs {
		ps = append(ps, p.process())
		var missing []host.Gap
		ps[len(ps)-1].Descriptors, missing = t.descriptors(byPID[p.pid], p)
		gaps = append(gaps, missing...)
	}
	return ps, gaps
}

func (p proc) process() host.Process {
	return host.Process{
		PID: p.pid, PPID: new(p.ppid), StartTicks: p.start, Start: p.began(), Name: p.comm, TTY: ttyName(p.tty),
		RUID: new(p.ruid), EUID: new(p.euid), SUID: new(p.suid), RGID: new(p.rgid), EGID: new(p.egid), SGID: new(p.sgid),
		Priority: new(p.priority), Nice: new(p.nice), Session: new(p.sid), PGRP: new(p.pgid),
	}
}

// ends are those of an internet socket, by which its other end is found; without a kind for any other.
func (t *tables) ends(s socket) ends {
	if !s.local.IsValid() {
		return ends{}
	}
	return ends{s.protocol(), t.domain(s.table), s.local, s.remote}
}

func (t *tables) domain(table uint32) uint32 {
	if d, ok := t.domains[table]; ok {
		return d
	}
	return table // as the first table of each domain is
}

// peer is the socket at the other end, where it is on this host: the one that is connected to this one, or for a datagram
// socket the one that hears what is sent to its remote address.
func (t *tables) peer(s socket) host.Object {
	e := t.ends(s)
	if !e.remote.IsValid() || e.kind == host.Raw || e.kind == "" {
		return ""
	}
	if o, ok := t.connected[ends{e.kind, e.domain, e.remote, e.local}]; ok {
		return o
	}
	if e.kind != host.UDP || !e.remote.Addr().IsLoopback() && !slices.Contains(t.own, e.remote.Addr()) {
		return ""
	}
	anywhere := netip.IPv4Unspecified()
	if e.remote.Addr().Is6() {
		anywhere = netip.IPv6Unspecified()
	}
	for _, a := range []netip.Addr{e.remote.Addr(), anywhere} {
		if o, ok := t.connected[ends{e.kind, e.domain, netip.AddrPortFrom(a, e.remote.Port()), netip.AddrPort{}}]; ok {
			return o
		}
	}
	return ""
}

// descriptors makes the descriptors of a process from its records, and the gaps in them.
func (t *tables) descriptors(files []file, p proc) ([]host.Descriptor, []host.Gap) {
	var ds posix.List
	var gaps []host.Gap
	untold := 0
	for _, f := range files {
		if f.fd < 0 {
			continue // its program, or a directory of it
		}
		d := t.descriptor(f, p)
		if d.Object == "" && f.addr == 0 && (d.Kind == host.Pipe || d.Kind == host.Unix || d.Kind.Inet() && d.Remote.IsValid()) {
			untold++
		}
		if f.waiting > 0 {
			gaps = append(gaps, host.Gap{PID: p.pid, What: fmt.Sprintf("descriptor %d", f.fd), Why: fmt.Sprintf("%d descriptors that were sent to it wait there: the kernel does not tell which", f.waiting)})
		}
		ds.Add(d)
	}
	if untold > 0 {
		gaps = append(gaps, host.Gap{PID: p.pid, What: fmt.Sprintf("other ends of %d descriptors", untold), Why: "the kernel tells root alone"})
	}
	return ds.All, gaps
}

func (t *tables) descriptor(f file, p proc) host.Descriptor {
	d := host.Descriptor{FDs: []int{f.fd}, Mode: mode(f.flag)}
	switch f.kind {
	case typeVnode:
		t.describeVnode(&d, f.vnode, p)
	case typeSocket:
		t.describeSocket(&d, f.socket)
	case typePipe:
		d.Kind, d.Object, d.Peer = host.Pipe, address("pipe", f.data), address("pipe", f.pipePeer)
	case typeKqueue:
		d.Kind = "kqueue"
	default:
		d.Kind, d.Name = "other", fmt.Sprintf("type %d", f.kind)
	}
	return d
}

func mode(flag uint32) host.Mode {
	switch flag & 3 {
	case 1:
		return host.Read
	case 2:
		return host.Write
	case 3:
		return host.ReadWrite
	}
	return ""
}

// describeVnode tells what a file or device is. The kernel knows no path of a file, only its number and file system.
func (t *tables) describeVnode(d *host.Descriptor, v vnode, p proc) {
	switch v.kind {
	case vnodeCharacter:
		t.describeDevice(d, v.rdev, p)
	case vnodeFIFO:
		d.Kind, d.Inode, d.Object = host.FIFO, v.id, v.object("fifo")
		d.Peer, d.Name = d.Object, v.name()
	case vnodeRegular:
		d.Kind, d.Inode, d.Object = host.File, v.id, v.object("file")
		d.Peer, d.Name = d.Object, v.name()
	default:
		d.Kind, d.Inode, d.Name = host.File, v.id, v.name()
	}
}

func (v vnode) name() string { return fmt.Sprintf("inode %d of %s", v.id, v.mount) }

// describeDevice tells which device a descriptor is of. /dev/tty is the terminal of the process's session.
func (t *tables) describeDevice(d *host.Descriptor, dev uint32, p proc) {
	major, minor := device(dev)
	d.Path = t.devices[dev]
	if major == majorOwn && p.tty != noDevice {
		major, minor = device(p.tty)
	}
	switch {
	case major == majorSlave:
		d.Kind, d.Side, d.Number = host.PTY, host.Slave, new(int(minor))
		d.Object, d.Peer = numbered("tty", minor), numbered("pty", minor)
		d.Path = "/dev/" + slaveName(minor)
	case major == majorMaster:
		d.Kind, d.Side, d.Number = host.PTY, host.Master, new(int(minor))
		d.Object, d.Peer = numbered("pty", minor), numbered("tty", minor)
		d.Path = "/dev/pty" + ptyLetters(minor)
	case isTerminal(major):
		d.Kind, d.Object = host.TTY, host.Object(fmt.Sprintf("tty:[%d:%d]", major, minor))
		d.Peer = d.Object
	default:
		d.Kind = host.File
	}
	if d.Path == "" {
		d.Name = fmt.Sprintf("character device %d,%d", major, minor)
	}
}

func (t *tables) describeSocket(d *host.Descriptor, s socket) {
	d.Object, d.Mode = s.object(), s.mode()
	switch kind := s.protocol(); {
	case s.family == familyUnix:
		d.Kind, d.Path, d.Peer = host.Unix, s.path, address("socket", s.conn)
		d.Type = map[uint32]string{socketStream: "stream", socketDatagram: "dgram", socketSeqpacket: "seqpacket"}[s.kind]
	case kind != "":
		d.Kind, d.Peer = kind, t.peer(s)
		d.Local, d.Remote, d.State, d.NetNS = s.local, s.remote, s.stateName(), uint64(t.domain(s.table))
		d.Direction, d.DirectionSource = s.direction()
	default:
		d.Kind, d.Name = host.OtherSocket, fmt.Sprintf("family %d, type %d, protocol %d", s.family, s.kind, s.proto)
	}
}

// paths adds to UNIX sockets the paths of their peers.
func paths(ps []host.Process) {
	bound := map[host.Object]string{}
	for _, p := range ps {
		for _, d := range p.Descriptors {
			if d.Kind == host.Unix && d.Path != "" {
				bound[d.Object] = d.Path
			}
		}
	}
	for _, p := range ps {
		for i, d := range p.Descriptors {
			if d.Kind == host.Unix {
				p.Descriptors[i].PeerPath = bound[d.Peer]
			}
		}
	}
}
