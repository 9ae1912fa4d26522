package linux

import (
	"context"
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// An index says who holds which object. One pass over the descriptors of all processes fills it for a
// whole trace.
type index struct {
	first map[object]int32 // into refs, plus one
	refs  []ref
	// threads lists, by process, the threads with descriptors of their own.
	threads map[int][]int
	gaps    []host.Gap
	// pass is what the kernel's iterator told, where it filled the index; else nil.
	pass *pass
}

// A ref is one descriptor of a process, or of a thread that has a table of its own.
type ref struct {
	pid, tid, fd int32
	next         int32 // the next of the same object, plus one
	told         uint8 // what the kernel's iterator told of it beside; see pass_linux.go
}

// turn is how many descriptors of one process are looked at before the others have their turn, so that
// nobody hides behind a process with very many.
const turn = 1024

// A share is what one worker scans.
type share struct {
	objects []object
	refs    []ref
	threads map[int][]int
	gaps    []host.Gap
	rest    []position
	buf     []byte
}

// A position is where a scan of one table of descriptors goes on.
type position struct {
	pid, tid int32
	offset   int64
}

// scan reads the descriptors of all processes.
func scan(ctx context.Context, root int, pipeDev uint64) *index {
	pids, err := listPIDs(root)
	slices.Reverse(pids) // the newest first: should the time not suffice, they are the likelier ones
	ix := scanThese(ctx, root, pipeDev, pids)
	if err != nil {
		ix.gaps = append(ix.gaps, host.Gap{What: "processes", Why: err.Error()})
	}
	slices.SortStableFunc(ix.gaps, func(a, b host.Gap) int { return a.PID - b.PID })
	return ix
}

// scanThese reads the descriptors of processes, on all processors. At the context's deadline it ends with a
// gap for each process that was not read whole. Once each has had a turn, those with very many descriptors
// have half of the time: the rest is for whoever is found.
func scanThese(ctx context.Context, root int, pipeDev uint64, pids []int) *index {
	ix := &index{first: map[object]int32{}, threads: map[int][]int{}}
	todo := make([]position, len(pids))
	for i, pid := range pids {
		todo[i] = position{pid: int32(pid)}
	}
	half := part(ctx, 2)
	for first := true; len(todo) > 0; first = false {
		if !first && !half.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, half)
			defer cancel()
			half = time.Time{}
		}
		if ctx.Err() != nil {
			for _, p := range todo {
				ix.gaps = append(ix.gaps, host.Gap{PID: int(p.pid), What: "descriptors", Why: "bound: deadline"})
			}
			break
		}
		todo = ix.round(ctx, root, pipeDev, todo, first)
	}
	return ix
}

// round gives each position its turn and returns those that are not at their end.
func (ix *index) round(ctx context.Context, root int, pipeDev uint64, todo []position, first bool) []position {
	shares := make([]share, min(runtime.GOMAXPROCS(0), len(todo)))
	var wg sync.WaitGroup
	var next atomic.Int64
	for i := range shares {
		wg.Go(func() {
			s := &shares[i]
			s.buf, s.threads = make([]byte, 32<<10), map[int][]int{}
			// Whoever is free takes the next, since neither processors nor processes are equally busy.
			for n := next.Add(1) - 1; n < int64(len(todo)); n = next.Add(1) - 1 {
				p := todo[n]
				if ctx.Err() != nil {
					s.rest = append(s.rest, p)
					continue
				}
				s.table(root, pipeDev, p)
				if first {
					s.ownTables(root, pipeDev, p.pid)
				}
			}
		})
	}
	wg.Wait()
	var rest []position
	for _, s := range shares {
		for i, o := range s.objects {
			ix.add(o, s.refs[i])
		}
		maps.Copy(ix.threads, s.threads)
		ix.gaps = append(ix.gaps, s.gaps...)
		rest = append(rest, s.rest...)
	}
	return rest
}

func (ix *index) add(o object, r ref) {
	r.next = ix.first[o]
	ix.refs = append(ix.refs, r)
	ix.first[o] = int32(len(ix.refs))
}

// table reads one turn of one table of descriptors.
func (s *share) table(root int, pipeDev uint64, p position) {
	if int(p.pid) == os.Getpid() {
		copies.Lock()
		defer copies.Unlock()
	}
	dir := fdPath(p)
	fd, err := unix.Openat(root, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.unread(p, err)
		return
	}
	defer unix.Close(fd)
	if p.offset > 0 {
		if _, err := unix.Seek(fd, p.offset, 0); err != nil {
			s.unread(p, err)
			return
		}
	}
	for n := 0; ; {
		got, err := unix.Getdents(fd, s.buf)
		if err != nil || got == 0 {
			s.unread(p, err)
			return
		}
		offset, ok := dirents(s.buf[:got], func(name []byte) bool {
			s.descriptor(fd, pipeDev, p, name)
			n++
			return n < turn
		})
		if !ok {
			p.offset = offset
			s.rest = append(s.rest, p)
			return
		}
		if got < len(s.buf)/2 {
			return // /proc fills the buffer as long as it has names
		}
	}
}

func (s *share) unread(p position, err error) {
	if n := len(s.gaps); n > 0 && s.gaps[n-1].PID == int(p.pid) {
		return // one a process
	}
	if err != nil && !gone(err) {
		s.gaps = append(s.gaps, host.Gap{PID: int(p.pid), What: "descriptors", Why: err.Error()})
	}
}

// gone reports whether an error says that a process has ended.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

func fdPath(p position) string {
	path := strconv.Itoa(int(p.pid))
	if p.tid != 0 {
		path += "/task/" + strconv.Itoa(int(p.tid))
	}
	return path + "/fd"
}

// descriptor indexes one descriptor if channels can be made of it. A stat follows the link to the open file
// itself; it is asked not to wait for a file system that is far away or written by a user.
func (s *share) descriptor(dir int, pipeDev uint64, p position, name []byte) {
	var st unix.Statx_t
	n, ok := number(name)
	if !ok {
		return
	}
	if err := statFD(dir, name, &st); err != nil {
		s.unread(p, err)
		return
	}
	o := objectOf(&st, pipeDev)
	if o.class == masterObject {
		if o = masterOf(dir, n); o.class == 0 {
			s.gaps = append(s.gaps, host.Gap{PID: int(p.pid), What: "descriptor " + string(name), Why: errTerminal.Error()})
		}
	}
	if o.class != 0 {
		s.objects = append(s.objects, o)
		s.refs = append(s.refs, ref{pid: p.pid, tid: p.tid, fd: int32(n)})
	}
}

func statFD(dir int, name []byte, st *unix.Statx_t) error {
	// name ends in NUL where it stands in the buffer of getdents, so nothing is copied.
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE|unix.STATX_INO, uintptr(unsafe.Pointer(st)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// objectOf tells what a channel could be made of; class 0 for anything else.
func objectOf(st *unix.Statx_t, pipeDev uint64) object {
	dev := unix.Mkdev(st.Dev_major, st.Dev_minor)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return object{socketObject, 0, st.Ino}
	case unix.S_IFIFO:
		if dev == pipeDev {
			return object{pipeObject, 0, st.Ino}
		}
		return object{fifoObject, dev, st.Ino}
	case unix.S_IFREG:
		return object{fileObject, dev, st.Ino}
	case unix.S_IFCHR:
		switch {
		case st.Rdev_major >= 136 && st.Rdev_major <= 143:
			return object{slaveObject, dev, uint64(st.Rdev_major-136)<<20 | uint64(st.Rdev_minor)}
		case st.Rdev_major == 5 && st.Rdev_minor == 2:
			return object{class: masterObject}
		case st.Rdev_major != 1: // null, zero and the like, which everybody has
			return object{deviceObject, uint64(st.Rdev_major), uint64(st.Rdev_minor)}
		}
	case 0: // the kernel shows no type of its anonymous files
		return object{anonObject, dev, st.Ino}
	}
	return object{}
}

var errTerminal = errors.New("which terminal it is of could not be read")

// masterOf tells which terminal the master side is of: its number is in fdinfo, and the file system that the
// slave is on is the one that the multiplexer is on (devpts has its own), or that is found beside it. Processes
// of containers have file systems of terminals of their own, and masters are sent from there to others: what
// the process sees beside its /dev/ptmx counts only if that is the one that was opened.
func masterOf(dir, n int) object {
	b := make([]byte, 1024)
	fd, err := unix.Openat(dir, "../fdinfo/"+strconv.Itoa(n), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return object{}
	}
	defer unix.Close(fd)
	got, err := unix.Read(fd, b)
	if err != nil {
		return object{}
	}
	v, ok := parseFdinfo(b[:max(got, 0)], "tty-index")
	number, err := strconv.ParseUint(v, 10, 32)
	if !ok || err != nil {
		return object{}
	}
	dev, ok := terminalsOf(dir, strconv.Itoa(n), v)
	if !ok {
		return object{}
	}
	return object{masterObject, dev, number}
}

// terminalsOf returns the device of the file system that the slave of an open multiplexer is on. Nothing is
// opened that the terminal could notice: O_PATH is a name.
func terminalsOf(dir int, name, number string) (uint64, bool) {
	const devptsMagic = 0x1cd1 // linux/magic.h
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st, beside, slave unix.Statx_t
	const how = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if unix.Fstatfs(fd, &fs) != nil || unix.Statx(fd, "", how|unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &st) != nil {
		return 0, false
	}
	if fs.Type == devptsMagic {
		return unix.Mkdev(st.Dev_major, st.Dev_minor), true
	}
	if unix.Statx(dir, "../root/dev/ptmx", how, unix.STATX_TYPE|unix.STATX_MNT_ID, &beside) != nil ||
		unix.Statx(dir, "../root/dev/pts/"+number, how, unix.STATX_TYPE, &slave) != nil {
		return 0, false
	}
	if beside.Mask&st.Mask&unix.STATX_MNT_ID == 0 || beside.Mnt_id != st.Mnt_id || slave.Rdev_major < 136 || slave.Rdev_major > 143 {
		return 0, false
	}
	return unix.Mkdev(slave.Dev_major, slave.Dev_minor), true
}

// ownTables reads the descriptors of threads that have a table of their own. kcmp(2) tells them from those
// that share the leader's; where it is not allowed, they are a gap.
func (s *share) ownTables(root int, pipeDev uint64, pid int32) {
	var st unix.Statx_t
	path := strconv.Itoa(int(pid)) + "/task"
	if err := unix.Statx(root, path, unix.AT_STATX_DONT_SYNC, unix.STATX_NLINK, &st); err != nil || st.Nlink <= 3 {
		return // the directory has two links and one a thread
	}
	fd, err := unix.Openat(root, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.unread(position{pid: pid}, err)
		return
	}
	defer unix.Close(fd)
	var own []int
	for {
		got, err := unix.Getdents(fd, s.buf)
		if err != nil || got == 0 {
			s.unread(position{pid: pid}, err)
			break
		}
		dirents(s.buf[:got], func(name []byte) bool {
			if tid, ok := number(name); ok && int32(tid) != pid && !s.sharesTable(int(pid), own, tid) {
				own = append(own, tid)
			}
			return true
		})
	}
	for _, tid := range own {
		s.table(root, pipeDev, position{pid: pid, tid: int32(tid)})
	}
	if len(own) > 0 {
		s.threads[int(pid)] = own
	}
}

// sharesTable reports whether a thread has the same descriptors as the leader or one of the others.
func (s *share) sharesTable(pid int, others []int, tid int) bool {
	const kcmpFiles = 2 // linux/kcmp.h
	for _, o := range append([]int{pid}, others...) {
		r, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(o), uintptr(tid), kcmpFiles, 0, 0, 0)
		if e != 0 {
			if e != unix.ESRCH && e != unix.ENOSYS {
				s.unread(position{pid: int32(pid)}, &os.SyscallError{Syscall: "kcmp", Err: e})
			}
			return true
		}
		if r == 0 {
			return true
		}
	}
	return false
}

// listPIDs lists the processes of /proc, ascending.
func listPIDs(root int) ([]int, error) {
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc", Err: err}
	}
	defer unix.Close(fd)
	var pids []int
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return pids, &os.PathError{Op: "list", Path: "/proc", Err: err}
		}
		if n == 0 {
			slices.Sort(pids)
			return pids, nil
		}
		dirents(buf[:n], func(name []byte) bool {
			if pid, ok := number(name); ok {
				pids = append(pids, pid)
			}
			return true
		})
	}
}
