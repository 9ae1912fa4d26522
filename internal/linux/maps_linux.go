package linux

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mappings lists what the process shares of its memory. Reading it may block for as long as the process
// changes its mappings, so the caller guards it.
func (d procDir) mappings() ([]mapping, error) {
	if !d.shares() {
		return nil, nil
	}
	b, err := d.readAtMost("maps", maxMaps)
	if err != nil {
		return nil, err
	}
	return parseMaps(b)
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
)

// shares reports whether the process may share any of its memory. Most share none, and a kernel that is asked
// for the first such mapping needs not write all of them down. True where the kernel cannot be asked.
func (d procDir) shares() bool {
	fd, err := unix.Openat(d.fd, "maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // whoever reads it says why it cannot
	}
	defer unix.Close(fd)
	q := procmapQuery{flags: procmapShared | procmapNext}
	q.size = uint64(unsafe.Sizeof(q))
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQueryCall, uintptr(unsafe.Pointer(&q)))
	return e != unix.ENOENT
}
