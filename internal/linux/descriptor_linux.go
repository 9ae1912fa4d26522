package linux

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// A table is the descriptors of one process while they are read. Those that refer to the same thing in the
// same mode become one.
type table struct {
	r     *reading
	tid   int // of the thread whose table it is; 0 is the process
	pidfd int
	known map[tableKey]int // index in the process's descriptors
	paths int              // octets of them so far
}

type tableKey struct {
	dev, ino, rdev uint64
	mode           host.Mode
	target         string
}

func (t *table) close() {
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
	}
}

func (t *table) read(ctx context.Context, dir string) {
	fd, err := unix.Openat(t.r.d.fd, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.r.note("descriptors", ended(err))
		return
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	seen := 0
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			t.r.note("descriptors", ended(err))
			return
		}
		_, ok := dirents(buf[:n], func(name []byte) bool {
			seen++
			if ctx.Err() != nil || seen > turn && !t.r.until.IsZero() && time.Now().After(t.r.until) {
				t.r.gap("descriptors", "bound: deadline")
				return false
			}
			return t.descriptor(ctx, fd, name)
		})
		if !ok {
			return
		}
	}
}

// descriptor reads one descriptor. It returns false where no other of this process can be read either.
func (t *table) descriptor(ctx context.Context, dir int, name []byte) bool {
	n, ok := number(name)
	if !ok {
		return true
	}
	var st unix.Statx_t
	if err := statFD(dir, name, &st); err != nil {
		return gone(err) || t.refused(dir, n, string(name), err)
	}
	key := tableKey{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor), mode: linkMode(dir, string(name))}
	raw := objectOf(&st, t.r.s.pipeDev)
	o, err := t.r.s.look(ctx, opened{dir: dir, n: n, pid: t.r.d.pid, copy: func() (int, error) { return t.copyOf(n) }}, raw)
	if err != nil {
		t.r.gap("descriptor "+string(name), err.Error())
	}
	if o != raw || o.class == 0 && st.Mode&unix.S_IFMT == 0 {
		// Masters of all terminals share one inode, as do most anonymous files.
		key.target = string(o.name()) + readLink(dir, string(name))
	}
	if i, ok := t.known[key]; ok {
		t.r.p.Descriptors[i].FDs = append(t.r.p.Descriptors[i].FDs, n)
		return true
	}
	d := host.Descriptor{FDs: []int{n}, Mode: key.mode, Inode: st.Ino, Object: o.name(), Peer: o.peer().name()}
	t.kind(ctx, &d, o, dir, string(name), &st)
	t.known[key] = len(t.r.p.Descriptors)
	t.r.p.Descriptors = append(t.r.p.Descriptors, d)
	return true
}

// refused adds a descriptor of which only the link can be read, because a file system does not answer about
// its file: one in user space (FUSE) answers to its own user alone. It returns false where not even that
// can be read, and so no other descriptor either.
func (t *table) refused(dir, n int, name string, err error) bool {
	target := readLink(dir, name)
	if target == "" {
		t.r.gap("descriptors", err.Error())
		return false
	}
	key := tableKey{mode: linkMode(dir, name), target: target}
	if i, ok := t.known[key]; ok {
		t.r.p.Descriptors[i].FDs = append(t.r.p.Descriptors[i].FDs, n)
		return true
	}
	t.r.gap("descriptor "+name, err.Error())
	t.known[key] = len(t.r.p.Descriptors)
	t.r.p.Descriptors = append(t.r.p.Descriptors, host.Descriptor{FDs: []int{n}, Kind: "other", Mode: key.mode, Name: target})
	return true
}

// linkMode reads the mode of a descriptor from the permissions of its link (proc_pid_fd(5)).
func linkMode(dir int, name string) host.Mode {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ""
	}
	switch st.Mode & 0o600 {
	case 0o400:
		return host.Read
	case 0o200:
		return host.Write
	case 0o600:
		return host.ReadWrite
	}
	return "" // O_PATH
}

// path returns the path of one descriptor of a process, or of one of its threads, below the process's.
func (r ref) path() string { return r.below("fd/") }

// info returns that of what the kernel tells of it.
func (r ref) info() string { return r.below("fdinfo/") }

func (r ref) below(dir string) string {
	name := dir + strconv.Itoa(int(r.fd))
	if r.tid != 0 {
		name = "task/" + strconv.Itoa(int(r.tid)) + "/" + name
	}
	return name
}

// mode reads the mode of one descriptor.
func (d procDir) mode(r ref) host.Mode { return linkMode(d.fd, r.path()) }

// maxPaths is how much the paths of one process's descriptors may take in a report.
const maxPaths = 512 << 10

// path reads what a descriptor of the table is called.
func (t *table) path(dir int, name string) string {
	s := readLink(dir, name)
	if t.paths += len(s); t.paths > maxPaths {
		if t.paths-len(s) <= maxPaths {
			t.r.gap("paths of descriptors", fmt.Sprintf("bound: %d octets", maxPaths))
		}
		return ""
	}
	return s
}

func readLink(dir int, name string) string {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return ""
	}
	return text(b[:n])
}

// kind fills in what depends on the kind of descriptor.
func (t *table) kind(ctx context.Context, d *host.Descriptor, o object, dir int, name string, st *unix.Statx_t) {
	switch o.class {
	case socketObject:
		if t.socket(ctx, d); d.Kind == host.Unix {
			t.r.parked(ctx, d, t.r.d.waiting(ref{tid: int32(t.tid), fd: int32(d.FDs[0])}))
		}
		return
	case pipeObject:
		d.Kind = host.Pipe
		return
	case fifoObject:
		d.Kind, d.Path = host.FIFO, t.path(dir, name)
		return
	case masterObject, slaveObject:
		d.Kind, d.Side, d.Number = host.PTY, host.Slave, new(int(o.n))
		if o.class == masterObject {
			d.Side = host.Master
		}
		d.Path = t.path(dir, name)
		return
	}
	target := t.path(dir, name)
	for _, numbered := range numberedFiles {
		if numbered.class == o.class {
			d.Kind, d.Name, d.Inode = numbered.kind, fmt.Sprintf("%s %d", target, o.n), 0
			return
		}
	}
	switch o.class {
	case fileObject:
		d.Kind, d.Path = memoryKind(target), target
		if d.Kind != host.File {
			t.r.s.mapped[o] = o
		} else if st.Dev_major == 0 && t.isQueue(d.FDs[0], o.dev) {
			d.Kind = host.MQueue
		} else if st.Dev_major == 0 {
			t.r.unbacked = append(t.r.unbacked, o.dev)
		}
		return
	case ttyObject:
		d.Kind, d.Path = host.TTY, target
		return
	case fuseObject:
		d.Kind, d.Name = host.FUSE, fmt.Sprintf("%s serves %s", target, deviceName(o.n))
		return
	case ringObject:
		d.Kind, d.Name = host.IOUring, target
		t.r.s.mapped[o] = o
		t.r.rings = append(t.r.rings, ref{pid: int32(t.r.d.pid), tid: int32(t.tid), fd: int32(d.FDs[0])})
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFBLK:
		d.Kind, d.Path = host.File, target
	case unix.S_IFCHR:
		d.Kind, d.Path = host.File, target
		switch {
		case st.Rdev_major == 4 || st.Rdev_major == 5:
			d.Kind = host.TTY
		case objectOf(st, 0) == deviceTun:
			d.Kind, d.Path, d.Name = "tun", "", t.told(dir, d.FDs[0], target, "iff")
		}
	default:
		// anon_inode:[eventpoll], anon_inode:inotify and so on: the kernel's own name is the kind.
		d.Kind, d.Name = host.Kind(strings.Trim(strings.TrimPrefix(path.Base(target), "anon_inode:"), "[]")), target
		d.Inode = 0
		switch d.Kind {
		case "pidfd":
			d.Name = t.told(dir, d.FDs[0], target, "Pid")
		case "", ".":
			d.Kind = "other"
		}
	}
}

// told adds to what the kernel calls a descriptor a field of its fdinfo.
func (t *table) told(dir, n int, target, field string) string {
	b, err := opened{dir: dir, n: n}.info()
	if v, ok := parseFdinfo(b, field); err == nil && ok {
		return target + " " + text([]byte(v))
	}
	return target
}

// deviceName writes a device number as major:minor.
func deviceName(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }

// served adds that a process has files of file systems which processes serve. devs are those of its files that
// have no device of their own.
func (r *reading) served(ctx context.Context, devs []uint64) {
	slices.Sort(devs)
	for _, dev := range slices.Compact(devs) {
		o := object{fuseObject, 0, dev}
		if _, ok := r.s.closer(ctx, deviceFUSE)[o]; !ok || slices.ContainsFunc(r.p.Descriptors, func(d host.Descriptor) bool { return d.Object == o.name() }) {
			continue
		}
		r.p.Descriptors = append(r.p.Descriptors, host.Descriptor{FDs: []int{}, Kind: host.FUSE, Mode: host.ReadWrite, Object: o.name(), Peer: o.name(),
			Name: "files of " + deviceName(dev)})
	}
}

// isQueue reports whether a descriptor is of a POSIX message queue, which is asked once of a file system. A
// question about the attributes of a queue (mq_getsetattr(2)) is refused of anything else without a look at its
// file system: a process may serve that, and never answer.
func (t *table) isQueue(n int, dev uint64) bool {
	is, known := t.r.s.queueFS[dev]
	if known {
		return is
	}
	copies.RLock()
	defer copies.RUnlock()
	fd, err := t.copyOf(n)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, 0)
	t.r.s.queueFS[dev] = e == 0
	return e == 0
}

// socket reads what a socket is. The daemon takes a copy of the descriptor (pidfd_getfd(2)) for as long as
// it asks: that works in every network namespace, and costs what this process holds rather than what the
// host does. Where it is not allowed, the socket is looked for among all of the host's own namespace.
func (t *table) socket(ctx context.Context, d *host.Descriptor) {
	d.Kind = host.OtherSocket
	copies.RLock()
	defer copies.RUnlock()
	fd, err := t.copyOf(d.FDs[0])
	if err != nil {
		t.r.s.listed(ctx, d, t.r)
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != d.Inode {
		t.r.gap("descriptor "+strconv.Itoa(d.FDs[0]), "it changed while it was looked at")
		return
	}
	t.r.s.copied(ctx, d, fd, t.r)
}

// copies is held to read by who has a copy of somebody's descriptor, and to write by who looks for holders
// among the daemon's own: a copy does not make it one.
var copies sync.RWMutex

// copyOf takes a copy of a descriptor of the process, or of the thread whose table is read.
func (t *table) copyOf(n int) (int, error) {
	if t.pidfd < 0 {
		id, flags := t.r.d.pid, 0
		if t.tid != 0 {
			id, flags = t.tid, unix.PIDFD_THREAD
		}
		fd, err := unix.PidfdOpen(id, flags)
		if err != nil {
			return -1, err
		}
		t.pidfd = fd
	}
	return unix.PidfdGetfd(t.pidfd, n, 0)
}
