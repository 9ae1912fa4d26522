package thesis

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

var here = unix.AT_FDCWD // negative, so no constant of uintptr

// openAt opens a path that ends in NUL, without a copy of it.
func openAt(path []byte, flags int) (int, error) {
	fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&path[0])),
		uintptr(flags|unix.O_RDONLY|unix.O_CLOEXEC), 0, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// readLinkAt reads the link of a name that ends in NUL, without a copy of it.
func readLinkAt(dir int, name, to []byte) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
