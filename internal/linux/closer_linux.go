package linux

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// Of some descriptors the file alone does not tell what a channel could be made of: all eventfds are one inode,
// /dev/tty is whatever terminal its opener had. The index has those of a kind together, and they are looked at
// more closely when one of that kind is met in the closure.

// Devices that are another terminal, or that are told by fdinfo (Documentation/admin-guide/devices.txt).
var (
	deviceTTY     = object{deviceObject, 5, 0}    // the controlling terminal of who opened it
	deviceConsole = object{deviceObject, 5, 1}    // the terminal that the kernel writes to
	deviceVT      = object{deviceObject, 4, 0}    // the virtual terminal that was shown
	deviceTun     = object{deviceObject, 10, 200} // /dev/net/tun
	deviceFUSE    = object{deviceObject, 10, 229} // /dev/fuse
	otherNames    = []object{deviceTTY, deviceConsole, deviceVT}
)

// anonymous returns the object that the index has of most anonymous files: one inode serves all.
var anonymous = sync.OnceValues(func() (object, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return object{}, fmt.Errorf("make eventfd: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return object{}, fmt.Errorf("stat eventfd: %w", err)
	}
	return object{anonObject, st.Dev, st.Ino}, nil
})

// An opened is one descriptor that is looked at closely: its number, the directory that it is in, and how to
// take a copy of it.
type opened struct {
	dir, n int
	pid    int
	copy   func() (int, error)
}

func (f opened) target() string { return readLink(f.dir, strconv.Itoa(f.n)) }

// maxFdinfo bounds what is read of a file of fdinfo: an epoll instance or an io_uring may list very much.
const maxFdinfo = 1 << 20

func (f opened) info() ([]byte, error) {
	return procDir{fd: f.dir}.readAtMost("../fdinfo/"+strconv.Itoa(f.n), maxFdinfo)
}

// field returns a field of fdinfo as a number; false where the kernel does not tell it.
func (f opened) field(name string) (uint64, bool) {
	b, err := f.info()
	if err != nil {
		return 0, false
	}
	v, ok := parseFdinfo(b, name)
	n, err := strconv.ParseUint(v, 10, 64)
	return n, ok && err == nil
}

// look returns the object that a descriptor refers to, given the one that the index has of it. Class 0 is one
// that no channel is made of. The error says why what should be known is not.
func (s *snapshot) look(ctx context.Context, f opened, o object) (object, error) {
	switch {
	case o.class == masterObject && o.n == 0 && o.dev == 0:
		if o = masterOf(f.dir, f.n); o.class == 0 {
			return o, errTerminal
		}
		return o, nil
	case o.class == anonObject:
		return lookAnonymous(f, o)
	case slices.Contains(otherNames, o):
		return s.lookTerminal(ctx, f)
	case o == deviceFUSE:
		// Linux 6.16 tells; a device that nothing is mounted with serves nobody.
		if n, ok := f.field("fuse_connection"); ok {
			return object{fuseObject, 0, unix.Mkdev(uint32(n>>20), uint32(n&(1<<20-1)))}, nil // as the kernel counts
		}
		return object{}, nil
	case o.class == deviceObject:
		if s.isTerminal(o) {
			return object{ttyObject, o.dev, o.n}, nil
		}
		return object{}, nil
	}
	return o, nil
}

// numberedFiles are the anonymous files, all of one inode, of which fdinfo has the kernel's own number.
var numberedFiles = []struct {
	target string
	class  byte
	kind   host.Kind
	field  string
}{
	{"anon_inode:[eventfd]", eventObject, host.EventFD, "eventfd-id"}, // Linux 5.2
}

func lookAnonymous(f opened, o object) (object, error) {
	target := f.target()
	for _, numbered := range numberedFiles {
		if numbered.target != target {
			continue
		}
		n, ok := f.field(numbered.field)
		if !ok {
			return object{}, fmt.Errorf("which %s it is could not be read", numbered.kind)
		}
		return object{numbered.class, 0, n}, nil
	}
	if target == "anon_inode:[io_uring]" {
		shared, err := anonymous()
		if err != nil || o == shared {
			return object{}, fmt.Errorf("which io_uring instance it is could not be read") // Linux before 5.12
		}
		return object{ringObject, o.dev, o.n}, nil
	}
	return object{}, nil
}

// lookTerminal asks a copy of the descriptor which terminal it is: that takes nothing from anybody.
func (s *snapshot) lookTerminal(ctx context.Context, f opened) (object, error) {
	s.index(ctx) // it cannot be read while there are copies
	copies.RLock()
	defer copies.RUnlock()
	fd, err := f.copy()
	if err != nil {
		return object{}, errTerminal
	}
	defer unix.Close(fd)
	dev, err := unix.IoctlGetUint32(fd, unix.TIOCGDEV)
	if err != nil {
		return object{}, nil // it was hung up
	}
	major, minor := deviceOf(int(int32(dev)))
	if major < 136 || major > 143 {
		return object{ttyObject, uint64(major), uint64(minor)}, nil
	}
	return s.slaveOf(ctx, uint64(major-136)<<20|uint64(minor), f.pid)
}

// slaveOf returns the slave side with a number that a process has as its terminal. Each file system of
// terminals counts its own: where several have one with that number, it is that of the process's session, which
// the master side tells, or a slave that the session holds.
func (s *snapshot) slaveOf(ctx context.Context, number uint64, pid int) (object, error) {
	ix := s.index(ctx)
	if s.numbered == nil {
		ix.settle(ctx, s.root, object{class: slaveObject})
		s.numbered = map[uint64][]object{}
		for o := range ix.first {
			slave := object{slaveObject, o.dev, o.n}
			if (o.class == slaveObject || o.class == masterObject) && !slices.Contains(s.numbered[o.n], slave) {
				s.numbered[o.n] = append(s.numbered[o.n], slave)
			}
		}
	}
	of := slices.Clone(s.numbered[number])
	if len(of) > 1 {
		session := s.session(pid)
		of = slices.DeleteFunc(of, func(o object) bool {
			return session == 0 || !slices.ContainsFunc(ix.of(o), func(r ref) bool { return s.session(int(r.pid)) == session }) &&
				!slices.ContainsFunc(ix.of(o.peer()), func(r ref) bool { return sessionBehind(r) == session })
		})
	}
	if len(of) != 1 {
		return object{}, errTerminal
	}
	return of[0], nil
}

// sessionBehind returns the session whose terminal a master is of, 0 for none: it is asked of a copy (TIOCGSID,
// ioctl_tty(2)). Whoever looks at the terminal itself must hold copies to read.
func sessionBehind(r ref) int {
	fd, err := copyDescriptor(int(r.pid), int(r.tid), int(r.fd))
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	session, err := unix.IoctlGetInt(fd, unix.TIOCGSID)
	if err != nil {
		return 0
	}
	return session
}

// session returns the session of a process, 0 where it cannot be read.
func (s *snapshot) session(pid int) int {
	d, err := openProc(s.root, pid)
	if err != nil {
		return 0
	}
	defer d.close()
	st, err := d.stat()
	if err != nil {
		return 0
	}
	return st.session
}

// isTerminal reports whether a device is a terminal, by the kernel's list of their drivers.
func (s *snapshot) isTerminal(o object) bool {
	if s.terminals == nil {
		b, err := os.ReadFile("/proc/tty/drivers")
		if err != nil {
			s.gaps = append(s.gaps, host.Gap{What: "terminals", Why: err.Error()})
		}
		s.terminals = append([]terminals{}, parseTerminals(b)...)
	}
	return slices.ContainsFunc(s.terminals, func(t terminals) bool {
		return uint64(t.major) == o.dev && uint64(t.from) <= o.n && o.n <= uint64(t.to)
	})
}

// of returns who holds an object as the index has it.
func (ix *index) of(o object) []ref {
	var refs []ref
	for i := ix.first[o]; i != 0; i = ix.refs[i-1].next {
		refs = append(refs, ix.refs[i-1])
	}
	return refs
}

// refs returns the descriptors of an object.
func (s *snapshot) refs(ctx context.Context, o object) []ref {
	ix := s.index(ctx)
	ix.settle(ctx, s.root, o)
	refs := ix.of(o)
	add := func(shared ...object) {
		for _, x := range shared {
			refs = append(refs, s.closer(ctx, x)[o]...)
		}
	}
	for _, numbered := range numberedFiles {
		if shared, err := anonymous(); numbered.class == o.class && err == nil {
			add(shared)
		}
	}
	switch o.class {
	case ringObject:
		refs = append(refs, ix.of(object{anonObject, o.dev, o.n})...)
	case slaveObject:
		add(deviceTTY)
	case ttyObject:
		refs = append(refs, ix.of(object{deviceObject, o.dev, o.n})...)
		add(otherNames...)
	case fuseObject:
		add(deviceFUSE)
		for x := range ix.first {
			if x.class == fileObject && x.dev == o.n {
				refs = append(refs, ix.of(x)...)
			}
		}
	}
	return refs
}

// closer looks at all descriptors that the index has as one, once, and returns them by what they are. Nobody
// hides behind a process with very many of them: each has its turn, and all together a quarter of the time.
func (s *snapshot) closer(ctx context.Context, shared object) map[object][]ref {
	if is, ok := s.looked[shared]; ok {
		return is
	}
	is := map[object][]ref{}
	s.looked[shared] = is
	until := part(ctx, 4)
	asked := map[int32]int{}
	for _, r := range s.index(ctx).of(shared) {
		if ctx.Err() != nil || !until.IsZero() && time.Now().After(until) {
			s.gaps = append(s.gaps, host.Gap{What: "descriptors of " + string(shared.name()), Why: "bound: deadline"})
			break
		}
		if asked[r.pid]++; asked[r.pid] > turn {
			if asked[r.pid] == turn+1 {
				s.gaps = append(s.gaps, host.Gap{PID: int(r.pid), What: "descriptors of " + string(shared.name()), Why: fmt.Sprintf("bound: %d of one process", turn)})
			}
			continue
		}
		o, err := s.lookAt(ctx, r, shared)
		if err != nil {
			s.gaps = append(s.gaps, host.Gap{PID: int(r.pid), What: "descriptor " + strconv.Itoa(int(r.fd)), Why: err.Error()})
		}
		if o.class != 0 {
			is[o] = append(is[o], r)
		}
	}
	return is
}

// lookAt looks at one descriptor of the index. One that is no more is of class 0.
func (s *snapshot) lookAt(ctx context.Context, r ref, o object) (object, error) {
	d, err := openProc(s.root, int(r.pid))
	if err != nil {
		return object{}, nil
	}
	defer d.close()
	return s.lookIn(ctx, d, r, o)
}

func (s *snapshot) lookIn(ctx context.Context, d procDir, r ref, o object) (object, error) {
	dir, err := unix.Openat(d.fd, strings.TrimSuffix(r.path(), "/"+strconv.Itoa(int(r.fd))), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return object{}, nil
	}
	defer unix.Close(dir)
	f := opened{dir: dir, n: int(r.fd), pid: int(r.pid), copy: func() (int, error) { return copyDescriptor(int(r.pid), int(r.tid), int(r.fd)) }}
	return s.look(ctx, f, o)
}

// copyDescriptor takes a copy of a descriptor of a process, or of a thread with a table of its own (tid not 0).
func copyDescriptor(pid, tid, n int) (int, error) {
	id, flags := pid, 0
	if tid != 0 {
		id, flags = tid, unix.PIDFD_THREAD
	}
	pidfd, err := unix.PidfdOpen(id, flags)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, n, 0)
}

// holds reports whether a descriptor still refers to an object.
func (s *snapshot) holds(ctx context.Context, d procDir, r ref, o object) bool {
	var st unix.Statx_t
	if err := statFD(d.fd, append([]byte(r.path()), 0), &st); err != nil {
		if r.told == 0 || err != unix.EACCES && err != unix.EPERM {
			return false
		}
		_, err := d.stat()
		return err == nil // the kernel told it, and nobody else may look
	}
	is := objectOf(&st, s.pipeDev)
	if is == o {
		return true
	}
	if is.class == fileObject && o.class == fuseObject {
		return is.dev == o.n
	}
	if is.class != masterObject && is.class != anonObject && is.class != deviceObject {
		return false
	}
	is, _ = s.lookIn(ctx, d, r, is)
	return is == o
}
