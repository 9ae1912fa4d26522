package freebsd

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// A look is one process with its descriptors.
type look struct {
	proc
	files []file
}

// The tables are what the kernel tells of all processes.
type tables struct {
	procs []look

	pairs posix.Pairs
	// unconnected are the ends of TCP sockets that are connected to nobody, used those of connections, also without their address.
	unconnected, used map[netip.AddrPort]bool
	// masters are the devices of pseudo terminals that somebody has the master of.
	masters map[uint64]bool
}

// processes makes the processes with their descriptors, in the kernel's order, and the gaps in them.
func (t *tables) processes() ([]host.Process, []host.Gap) {
	t.pairs, t.masters = posix.Pairs{}, map[uint64]bool{}
	t.unconnected, t.used = map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for _, p := range t.procs {
		for _, f := range p.files {
			switch k := f.protocol(); {
			case k != "" && f.socket.remote.IsValid():
				t.pairs.Add(host.Descriptor{Kind: k, Object: f.object(), Local: f.socket.local, Remote: f.socket.remote})
				if k == host.TCP {
					t.used[f.socket.local], t.used[anywhere(f.socket.local)] = true, true
				}
			case k == host.TCP && f.socket.local.Port() != 0:
				t.unconnected[f.socket.local] = true
			case f.kind == typePTS:
				t.masters[f.vnode.rdev] = true
			}
		}
	}
	ps := make([]host.Process, 0, len(t.procs))
	var gaps []host.Gap
	for _, p := range t.procs {
		hp, more := t.process(p)
		ps, gaps = append(ps, hp), append(gaps, more...)
	}
	return ps, gaps
}

func (t *tables) process(p look) (hp host.Process, gaps []host.Gap) {
	hp = host.Process{
		PID: p.pid, PPID: new(p.ppid), StartTicks: p.start, Start: p.began(), Name: p.name,
		RUID: new(p.ruid), EUID: new(p.euid), SUID: new(p.suid), RGID: new(p.rgid), EGID: new(p.egid), SGID: new(p.sgid),
		Priority: new(p.priority), Nice: new(p.nice), Session: new(p.sid), PGRP: new(p.pgid),
	}
	var ds posix.List
	for _, f := range p.files {
		switch {
		case f.fd >= 0:
			d := t.descriptor(f)
			if d.Kind.Inet() {
				var err error
				if d.Peer, err = t.pairs.Peer(d); err != nil {
					gaps = append(gaps, host.Gap{PID: p.pid, What: fmt.Sprintf("other end of descriptor %d", f.fd), Why: err.Error()})
				}
			}
			ds.Add(d)
		case f.fd == fdDirectory:
			hp.CWD = f.path
		case f.fd == fdProgram:
			hp.Exe = f.path
		case f.fd == fdTerminal:
			hp.TTY = strings.TrimPrefix(f.path, "/dev/")
		}
	}
	hp.Descriptors = ds.All
	return hp, gaps
}

// protocol is the kind of an internet socket; empty for any other.
func (f file) protocol() host.Kind {
	s := f.socket
	switch {
	case f.kind != typeSocket || s.family != familyInet && s.family != familyInet6 || !s.local.IsValid():
		return ""
	case s.kind == socketRaw:
		return host.Raw
	case s.kind == socketStream && s.proto == protoTCP:
		return host.TCP
	case s.kind == socketDatagram && s.proto == protoUDP:
		return host.UDP
	}
	return ""
}

// object names what a descriptor is of by the kernel's address; empty where it does not tell.
func (f file) object() host.Object {
	switch f.kind {
	case typeSocket:
		return address("socket", f.addr)
	case typePipe:
		return address("pipe", f.addr)
	}
	return ""
}

func address(class string, at uint64) host.Object {
	if at == 0 {
		return ""
	}
	return host.Object(fmt.Sprintf("%s:[%x]", class, at))
}

func (f file) mode() host.Mode {
	switch f.flags & 3 {
	case 1:
		return host.Read
	case 2:
		return host.Write
	case 3:
		return host.ReadWrite
	}
	return ""
}

func (t *tables) descriptor(f file) host.Descriptor {
	d := host.Descriptor{FDs: []int{f.fd}, Mode: f.mode(), Object: f.object()}
	switch f.kind {
	case typeSocket:
		t.describeSocket(&d, f)
	case typePipe:
		d.Kind, d.Peer = host.Pipe, address("pipe", f.peer)
	case typePTS:
		t.describeTerminal(&d, f, host.Master)
	case typeVnode, typeFIFO:
		t.describeVnode(&d, f)
	default:
		d.Kind, d.Path, d.Name = "other", f.path, fmt.Sprintf("type %d", f.kind)
		if name, ok := typeNames[f.kind]; ok {
			d.Kind = host.Kind(name)
		}
	}
	return d
}

func (t *tables) describeVnode(d *host.Descriptor, f file) {
	v := f.vnode
	d.Kind, d.Path, d.Inode = host.File, f.path, v.id
	class := ""
	switch {
	case v.kind == vnodeCharacter && (t.masters[v.rdev] || strings.HasPrefix(f.path, "/dev/pts/")):
		t.describeTerminal(d, f, host.Slave)
		return
	case v.kind == vnodeFIFO || f.kind == typeFIFO:
		d.Kind, class = host.FIFO, "fifo"
	case v.kind == vnodeRegular:
		class = "file"
	}
	if class != "" && v.id != 0 {
		d.Object = host.Object(fmt.Sprintf("%s:[%x:%d]", class, v.fsid, v.id))
		d.Peer = d.Object
	}
}

// describeTerminal tells which pseudo terminal a descriptor is of: of both sides the kernel tells the device of the slave.
func (t *tables) describeTerminal(d *host.Descriptor, f file, side string) {
	d.Kind, d.Side, d.Inode = host.PTY, side, 0
	if _, number, ok := strings.Cut(f.path, "pts/"); ok {
		if n, err := strconv.Atoi(number); err == nil {
			d.Number = &n
		}
	}
	master, slave := address("ptm", f.vnode.rdev), address("pts", f.vnode.rdev)
	if d.Path, d.Object, d.Peer = f.path, slave, master; side == host.Master {
		d.Path, d.Object, d.Peer = "", master, slave
	}
}

func (t *tables) describeSocket(d *host.Descriptor, f file) {
	s := f.socket
	d.Mode = host.ReadWrite
	switch kind := f.protocol(); {
	case s.family == familyUnix:
		d.Kind, d.Path, d.PeerPath, d.Peer = host.Unix, s.path, s.peerPath, address("socket", f.peer)
		d.Type = map[int]string{socketStream: "stream", socketDatagram: "dgram", socketSeqpacket: "seqpacket"}[s.kind]
		switch send, receive := s.send&sendClosed == 0, s.receive&receiveClosed == 0; {
		case send && !receive:
			d.Mode = host.Write
		case receive && !send:
			d.Mode = host.Read
		}
	case kind != "":
		d.Kind, d.Local, d.Remote = kind, s.local, s.remote
		d.State, d.Direction, d.DirectionSource = t.told(kind, s)
	default:
		d.Kind, d.Name = host.OtherSocket, fmt.Sprintf("family %d, type %d, protocol %d", s.family, s.kind, s.proto)
	}
}

// told is what is known of the state of a socket and of who opened its connection. The kernel tells neither. A TCP socket without a
// peer on whose port there is a connection listens, and that connection came to it: a hint, since a program may connect from a
// port that another listens on.
func (t *tables) told(kind host.Kind, s socket) (state string, d host.Direction, by host.Source) {
	switch {
	case kind != host.TCP && s.remote.IsValid():
		return "ESTABLISHED", host.Outbound, host.FromAddress
	case kind != host.TCP:
		return "", "", ""
	case s.remote.IsValid() && (t.unconnected[s.local] || t.unconnected[anywhere(s.local)] || t.unconnected[both(s.local)]):
		return "", host.Inbound, host.FromListener
	case s.remote.IsValid():
		return "", host.UnknownDirection, ""
	}
	if t.used[s.local] || s.local == both(s.local) && t.used[netip.AddrPortFrom(netip.IPv4Unspecified(), s.local.Port())] {
		return "LISTEN", "", ""
	}
	return "", "", ""
}

// anywhere is a port of any address of the same family, both that of a socket of version 6, which may be for both.
func anywhere(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())
	}
	return both(a)
}

func both(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())
}
