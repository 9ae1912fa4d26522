// Package thesis is the algorithm that stopd is measured against: the Linux collector of Brian Carrier's
// thesis (sections 4.3 and 4.4), written anew in Go with the care that a collector of today would get, so
// that what is compared is the way of looking and not the language or the buffers.
//
// A connection is looked for line by line in /proc/net/tcp. Whoever holds it is looked for among the
// descriptors of all processes, those of the socket's own user first. Each process on the way to init is
// read, and each of its sockets looked for in /proc/net again. For each channel the descriptors of all
// processes are read once more: to the first holder of a socket, to the last of a pipe.
//
// It is generous to the baseline where the thesis leaves a choice: nothing is read that the thesis does not
// save, and the modes of descriptors are left out.
package thesis

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
)

// A Descriptor is a pipe or a socket that a process holds.
type Descriptor struct {
	Kind          string // pipe, tcp, udp, raw, unix or socket
	Inode         uint64
	Local, Remote netip.AddrPort // of tcp, udp and raw
}

// A Process is what the thesis saves of one.
type Process struct {
	PID, PPID   int
	Name        string
	TTY         int
	Priority    int
	Start       uint64 // clock ticks after boot
	RUID, EUID  uint32
	RGID, EGID  uint32
	Descriptors []Descriptor
}

// A row is a line of /proc/net/tcp, udp or raw.
type row struct {
	local, remote netip.AddrPort
	uid           uint32
	inode         uint64
}

// ends writes both ends of a connection as /proc/net/tcp has them: addresses as the number that their
// octets make in the machine's order, in hexadecimal.
func ends(b []byte, local, remote netip.AddrPort) []byte {
	b = end(b, local)
	b = append(b, ' ')
	return end(b, remote)
}

func end(b []byte, ap netip.AddrPort) []byte {
	a := ap.Addr().As4()
	var n [6]byte
	binary.BigEndian.PutUint32(n[:], binary.NativeEndian.Uint32(a[:]))
	binary.BigEndian.PutUint16(n[4:], ap.Port())
	var h [12]byte
	hex.Encode(h[:], n[:])
	b = append(b, bytes.ToUpper(h[:8])...)
	b = append(b, ':')
	return append(b, bytes.ToUpper(h[8:])...)
}

// field cuts the first field of a line off.
func field(b []byte) (f, rest []byte) {
	i := 0
	for i < len(b) && b[i] == ' ' {
		i++
	}
	b = b[i:]
	i = bytes.IndexByte(b, ' ')
	if i < 0 {
		return b, nil
	}
	return b[:i], b[i:]
}

// column returns a field of a line, counted from 0; empty where there is none.
func column(line []byte, n int) []byte {
	f, rest := field(line)
	for range n {
		f, rest = field(rest)
	}
	return f
}

// parseRow parses a line; false for the heading.
func parseRow(line []byte) (row, bool) {
	_, rest := field(line)
	local, rest := field(rest)
	remote, rest := field(rest)
	var r row
	var ok, ok2 bool
	if r.local, ok = parseEnd(local); !ok {
		return row{}, false
	}
	if r.remote, ok = parseEnd(remote); !ok {
		return row{}, false
	}
	uid, ok := number(column(rest, 4))
	r.inode, ok2 = number(column(rest, 6))
	r.uid = uint32(uid)
	return r, ok && ok2
}

func parseEnd(b []byte) (netip.AddrPort, bool) {
	var n [6]byte
	if len(b) != 13 || b[8] != ':' {
		return netip.AddrPort{}, false
	}
	_, err := hex.Decode(n[:4], b[:8])
	_, err2 := hex.Decode(n[4:], b[9:])
	if err != nil || err2 != nil {
		return netip.AddrPort{}, false
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(n[:]))
	return netip.AddrPortFrom(netip.AddrFrom4(a), binary.BigEndian.Uint16(n[4:])), true
}

func number(b []byte) (uint64, bool) {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0 && len(b) < 20
}

// objectInode reads the inode of a link such as pipe:[3703552].
func objectInode(link []byte, prefix string) (uint64, bool) {
	rest, ok := bytes.CutPrefix(link, []byte(prefix))
	if !ok {
		return 0, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte("]"))
	if !ok {
		return 0, false
	}
	return number(rest)
}

// parseStat reads what the thesis takes from /proc/PID/stat.
func (p *Process) parseStat(b []byte) bool {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return false
	}
	b = b[i+1:]
	var values [20]int64
	for i := range values {
		var f []byte
		f, b = field(b)
		minus := len(f) > 0 && f[0] == '-'
		if minus {
			f = f[1:]
		}
		n, ok := number(bytes.TrimSpace(f))
		if i > 0 && !ok {
			return false
		}
		if values[i] = int64(n); minus {
			values[i] = -values[i]
		}
	}
	p.PPID, p.TTY, p.Priority, p.Start = int(values[1]), int(values[4]), int(values[15]), uint64(values[19])
	return true
}

// ids returns the four ids of a line of /proc/PID/status.
func ids(status []byte, key string) ([4]uint32, bool) {
	var out [4]uint32
	i := bytes.Index(status, []byte(key))
	if i < 0 {
		return out, false
	}
	rest := status[i+len(key):]
	for i := range out {
		n, used := uint32(0), 0
		for used < len(rest) && rest[used] != '\n' && (rest[used] < '0' || rest[used] > '9') {
			used++
		}
		for used < len(rest) && rest[used] >= '0' && rest[used] <= '9' {
			n = n*10 + uint32(rest[used]-'0')
			used++
		}
		out[i], rest = n, rest[used:]
	}
	return out, true
}
