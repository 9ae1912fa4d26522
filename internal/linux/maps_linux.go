package linux

import (
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// mappings lists what the process shares of its memory. Reading it may block for as long as the process
// changes its mappings, so the caller guards it.
func (d procDir) mappings(shmDev uint64) ([]mapping, error) {
	if !d.shares(shmDev) {
		return nil, nil
	}
	b, err := d.readAtMost("maps", maxMaps)
	if len(b) == 0 && (err == nil || gone(err)) {
		if t, _, ok := d.living(); ok {
			defer t.close()
			b, err = t.readAtMost("maps", maxMaps)
		}
	}
	if err != nil {
		return nil, err
	}
	ms, err := parseMaps(b)
	for i, m := range ms {
		if m.mode == host.Read && !m.private && d.mayWrite(m, shmDev) {
			ms[i].mode = host.ReadWrite
		}
	}
	return ms, err
}

// mayWrite reports whether a process can make a mapping of the kernel's own memory writable, by how what it maps was opened and
// sealed (memfd_create(2)).
func (d procDir) mayWrite(m mapping, shmDev uint64) bool {
	if m.dev != shmDev || !linkMode(d.fd, "map_files/"+m.area).Writes() {
		return false
	}
	fd, err := unix.Openat(d.fd, "map_files/"+m.area, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) == 0
}

// living returns a thread that still has the memory and the namespaces of a process whose first one has ended, which is the one
// that /proc/PID shows; false where the first has not ended, or no other is left.
func (d procDir) living() (procDir, stat, bool) {
	if st, err := d.stat(); err != nil || st.state != 'Z' {
		return procDir{}, stat{}, false
	}
	tasks, err := unix.Openat(d.fd, "task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procDir{}, stat{}, false
	}
	defer unix.Close(tasks)
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(tasks, buf)
		if err != nil || n == 0 {
			return procDir{}, stat{}, false
		}
		var found procDir
		var st stat
		dirents(buf[:n], func(name []byte) bool {
			tid, ok := number(name)
			if !ok || tid == d.pid {
				return true
			}
			fd, err := unix.Openat(tasks, strconv.Itoa(tid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return true
			}
			t := procDir{fd, d.pid}
			if st, err = t.stat(); err != nil || st.state == 'Z' || st.state == 'X' {
				t.close()
				return true
			}
			found = t
			return false
		})
		if found != (procDir{}) {
			return found, st, true
		}
	}
}

// procmapQuery is struct procmap_query of linux/fs.h, since Linux 6.11.
type procmapQuery struct {
	size, flags, from         uint64
	start, end, vma           uint64
	pageSize, offset, inode   uint64
	devMajor, devMinor        uint32
	nameSize, buildIDSize     uint32
	nameAddress, buildAddress uint64
}

const (
	procmapQueryCall = 0xc0686611 // _IOWR('f', 17, struct procmap_query)
	procmapShared    = 0x08
	procmapNext      = 0x10
	procmapFile      = 0x20
)

// maxQueries is of how many mappings the kernel is asked one by one, before the list of all is read.
const maxQueries = 512

// shares reports whether the process may share any of its memory. Most share none, and a kernel that is asked
// for such a mapping needs not write all of them down. True where the kernel cannot be asked.
func (d procDir) shares(shmDev uint64) bool {
	fd, err := unix.Openat(d.fd, "maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // whoever reads it says why it cannot
	}
	defer unix.Close(fd)
	ask := func(q *procmapQuery) unix.Errno {
		q.size = uint64(unsafe.Sizeof(*q))
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQueryCall, uintptr(unsafe.Pointer(q)))
		return e
	}
	q := procmapQuery{flags: procmapShared | procmapNext}
	if e := ask(&q); e != unix.ENOENT {
		return true
	}
	// What is mapped privately is mostly programs and libraries, and what is not has another device, or one that is no disk's.
	name := make([]byte, unix.PathMax)
	var pin runtime.Pinner // the kernel writes to where it was
	pin.Pin(&name[0])
	defer pin.Unpin()
	for range maxQueries {
		q = procmapQuery{flags: procmapFile | procmapNext, from: q.end}
		if e := ask(&q); e != 0 {
			return e != unix.ENOENT
		}
		if mkdev(uint64(q.devMajor), uint64(q.devMinor)) == shmDev {
			return true
		}
		if q.devMajor != 0 {
			continue
		}
		n := procmapQuery{flags: procmapFile | procmapNext, from: q.start, nameSize: uint32(len(name)), nameAddress: uint64(uintptr(unsafe.Pointer(&name[0])))}
		if e := ask(&n); e != 0 || strings.HasPrefix(string(name[:max(n.nameSize, 1)-1]), shmPath) {
			return true
		}
	}
	return true
}
