package thesis

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNotFound says that the connection, or whoever holds it, was not found.
var ErrNotFound = errors.New("not found")

// A Looker looks at this machine. Its buffers serve all questions, one at a time.
type Looker struct {
	// Once makes it better than the thesis: the files of /proc/net are read once a question and not once a
	// socket.
	Once              bool
	known             map[uint64]Descriptor // what /proc/net says of each inode, where Once is set
	file, names, link []byte
	path              []byte
	pids              []int
}

// New returns a Looker.
func New() *Looker {
	return &Looker{file: make([]byte, 64<<10), names: make([]byte, 32<<10), link: make([]byte, unix.PathMax)}
}

// ID returns the user of a connection: process_req and find_tcp of the thesis.
func (l *Looker) ID(local, remote netip.AddrPort) (uint32, error) {
	r, err := l.findTCP(local, remote)
	return r.uid, err
}

// findTCP looks for both ends in /proc/net/tcp.
func (l *Looker) findTCP(local, remote netip.AddrPort) (row, error) {
	var want [32]byte
	text := ends(want[:0], local, remote)
	var found row
	err := l.lines("/proc/net/tcp", func(line []byte) bool {
		if !bytes.Contains(line, text) {
			return true
		}
		r, ok := parseRow(line)
		if ok && r.local == local && r.remote == remote {
			found = r
			return false
		}
		return true
	})
	if err == nil && found.inode == 0 {
		err = ErrNotFound
	}
	return found, err
}

// lines calls yield with the lines of a file until it returns false.
func (l *Looker) lines(path string, yield func(line []byte) bool) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	kept := 0
	for {
		n, err := unix.Read(fd, l.file[kept:])
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		b := l.file[:kept+n]
		if n == 0 {
			return nil
		}
		for {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			if !yield(b[:i]) {
				return nil
			}
			b = b[i+1:]
		}
		kept = copy(l.file, b)
	}
}

// SV finds the processes behind a connection: process_req, walk_ptree and resolve_lcl.
func (l *Looker) SV(local, remote netip.AddrPort) ([]Process, error) {
	r, err := l.findTCP(local, remote)
	if err != nil {
		return nil, err
	}
	pid, err := l.findProc(r.inode, r.uid)
	if err != nil {
		return nil, err
	}
	l.known = nil
	t := tree{l: l, seen: map[int]bool{}, channels: map[uint64]bool{r.inode: true}}
	t.walk(pid)
	for i := 0; i < len(t.processes); i++ {
		if t.processes[i].PID == 1 {
			continue // it has an end of something of everybody's
		}
		for _, d := range t.processes[i].Descriptors {
			if err := t.resolve(d); err != nil {
				return nil, err
			}
		}
	}
	return t.processes, nil
}

// findProc looks for the process that holds a socket, among those of its user first.
func (l *Looker) findProc(inode uint64, uid uint32) (int, error) {
	want := objectName("socket:[", inode)
	if err := l.listPIDs(); err != nil {
		return 0, err
	}
	var others []int
	for _, pid := range l.pids {
		b, err := l.read(l.of(pid, "status"))
		if err != nil {
			continue
		}
		u, ok := ids(b, "\nUid:")
		if !ok || u[0] != uid && u[1] != uid {
			others = append(others, pid)
			continue
		}
		if l.holds(pid, want) {
			return pid, nil
		}
	}
	for _, pid := range others {
		if l.holds(pid, want) {
			return pid, nil
		}
	}
	return 0, ErrNotFound
}

func objectName(prefix string, inode uint64) []byte {
	return append(strconv.AppendUint([]byte(prefix), inode, 10), ']')
}

// holds reports whether a process has a descriptor with the given link.
func (l *Looker) holds(pid int, want []byte) bool {
	found := false
	l.links(pid, func(link []byte) bool {
		found = bytes.Equal(link, want)
		return !found
	})
	return found
}

// links calls yield with the link of each descriptor of a process until it returns false. A process that
// has ended has none.
func (l *Looker) links(pid int, yield func(link []byte) bool) {
	fd, err := openAt(l.of(pid, "fd"), unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var name [12]byte
	l.entries(fd, func(entry []byte) bool {
		name[copy(name[:len(name)-1], entry)] = 0
		n, err := readLinkAt(fd, name[:], l.link)
		return err != nil || yield(l.link[:n])
	})
}

// entries calls yield with each name of a directory until it returns false.
func (l *Looker) entries(fd int, yield func(name []byte) bool) error {
	for {
		n, err := unix.Getdents(fd, l.names)
		if err != nil || n == 0 {
			return err
		}
		for b := l.names[:n]; len(b) > 19; { // struct linux_dirent64, getdents64(2)
			length := int(binary.NativeEndian.Uint16(b[16:]))
			name := b[19:length]
			name = name[:bytes.IndexByte(name, 0)]
			if name[0] != '.' && !yield(name) {
				return nil
			}
			b = b[length:]
		}
	}
}

func (l *Looker) listPIDs() error {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	defer unix.Close(fd)
	l.pids = l.pids[:0]
	return l.entries(fd, func(name []byte) bool {
		if pid, ok := number(name); ok {
			l.pids = append(l.pids, int(pid))
		}
		return true
	})
}

// of makes the path of a file of a process, ended by NUL. It stands until the next one is made.
func (l *Looker) of(pid int, name string) []byte {
	l.path = append(l.path[:0], "/proc/"...)
	l.path = strconv.AppendInt(l.path, int64(pid), 10)
	l.path = append(l.path, '/')
	l.path = append(l.path, name...)
	l.path = append(l.path, 0)
	return l.path
}

// read reads a small file whole. Its bytes stand until the next one is read.
func (l *Looker) read(path []byte) ([]byte, error) {
	fd, err := openAt(path, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, l.file)
	if err == nil && n == len(l.file) {
		err = io.ErrShortBuffer
	}
	return l.file[:max(n, 0)], err
}

// A tree is the processes found so far.
type tree struct {
	l         *Looker
	processes []Process
	seen      map[int]bool
	channels  map[uint64]bool
}

// walk reads a process and its ancestors, up to one that has been read.
func (t *tree) walk(pid int) {
	for pid > 0 && !t.seen[pid] {
		p, ok := t.l.process(pid)
		if !ok {
			return
		}
		t.seen[pid] = true
		t.processes = append(t.processes, p)
		pid = p.PPID
	}
}

// resolve walks from whoever is at the other end of a pipe or of a connection within the host.
func (t *tree) resolve(d Descriptor) error {
	switch {
	case d.Kind == "pipe" && !t.channels[d.Inode]:
		t.channels[d.Inode] = true
		want := objectName("pipe:[", d.Inode)
		if err := t.l.listPIDs(); err != nil {
			return err
		}
		for _, pid := range slices.Clone(t.l.pids) {
			if t.l.holds(pid, want) {
				t.walk(pid)
			}
		}
	case d.Kind == "tcp" && d.Remote.Addr().IsLoopback() && !t.channels[d.Inode]:
		t.channels[d.Inode] = true
		r, err := t.l.findTCP(d.Remote, d.Local)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		t.channels[r.inode] = true
		if pid, err := t.l.findProc(r.inode, r.uid); err == nil {
			t.walk(pid)
		}
	}
	return nil
}

// process reads one process: read_stat, read_status, read_name and read_fd.
func (l *Looker) process(pid int) (Process, bool) {
	p := Process{PID: pid}
	b, err := l.read(l.of(pid, "stat"))
	if err != nil || !p.parseStat(b) {
		return p, false
	}
	if b, err = l.read(l.of(pid, "status")); err != nil {
		return p, false
	}
	u, ok := ids(b, "\nUid:")
	g, ok2 := ids(b, "\nGid:")
	if !ok || !ok2 {
		return p, false
	}
	p.RUID, p.EUID, p.RGID, p.EGID = u[0], u[1], g[0], g[1]
	if n, err := readLinkAt(unix.AT_FDCWD, l.of(pid, "exe"), l.link); err == nil {
		p.Name = string(l.link[:n])
	}
	l.links(pid, func(link []byte) bool {
		if inode, ok := objectInode(link, "pipe:["); ok {
			p.Descriptors = append(p.Descriptors, Descriptor{Kind: "pipe", Inode: inode})
		} else if inode, ok := objectInode(link, "socket:["); ok {
			p.Descriptors = append(p.Descriptors, Descriptor{Kind: "socket", Inode: inode})
		}
		return true
	})
	for i := range p.Descriptors {
		if d := &p.Descriptors[i]; d.Kind == "socket" {
			l.socket(d)
		}
	}
	return p, true
}

// netFiles are where sockets are looked for, and the column of the inode.
var netFiles = [...]struct {
	kind, path string
	column     int
}{{"tcp", "/proc/net/tcp", 9}, {"udp", "/proc/net/udp", 9}, {"raw", "/proc/net/raw", 9}, {"unix", "/proc/net/unix", 6}}

// readNet reads all of them.
func (l *Looker) readNet() {
	l.known = map[uint64]Descriptor{}
	for _, f := range netFiles {
		l.lines(f.path, func(line []byte) bool {
			inode, ok := number(column(line, f.column))
			if ok && inode != 0 {
				d := Descriptor{Kind: f.kind, Inode: inode}
				if r, ok := parseRow(line); ok && f.kind != "unix" {
					d.Local, d.Remote = r.local, r.remote
				}
				l.known[inode] = d
			}
			return true
		})
	}
}

// socket looks for a socket's inode in the files of /proc/net: save_socket.
func (l *Looker) socket(d *Descriptor) {
	if l.Once {
		if l.known == nil {
			l.readNet()
		}
		if k, ok := l.known[d.Inode]; ok {
			*d = k
		}
		return
	}
	want := strconv.AppendUint(nil, d.Inode, 10)
	for _, f := range netFiles {
		err := l.lines(f.path, func(line []byte) bool {
			if !bytes.Contains(line, want) || !bytes.Equal(column(line, f.column), want) {
				return true
			}
			d.Kind = f.kind
			if r, ok := parseRow(line); ok && f.kind != "unix" {
				d.Local, d.Remote = r.local, r.remote
			}
			return false
		})
		if err == nil && d.Kind != "socket" {
			return
		}
	}
}

// Text writes the processes as lines of text, as the thesis's daemon saves them.
func Text(w io.Writer, ps []Process) error {
	var b bytes.Buffer
	for i, p := range ps {
		fmt.Fprintf(&b, "%d: %s [%d]\n   tty: %d start: %d priority: %d   parent: %d\n   ruid: %d euid: %d\n   rgid: %d egid: %d\n",
			i+1, p.Name, p.PID, p.TTY, p.Start, p.Priority, p.PPID, p.RUID, p.EUID, p.RGID, p.EGID)
		for _, d := range p.Descriptors {
			fmt.Fprintf(&b, "     %s: [%d] %s -> %s\n", d.Kind, d.Inode, d.Local, d.Remote)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}
