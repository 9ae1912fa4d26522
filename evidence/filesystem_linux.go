package evidence

import (
	"math"

	"golang.org/x/sys/unix"
)

func fileSystemOf(path string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fileSystem{}, err
	}
	fs := fileSystem{left: roomOf(st.Bavail, uint64(st.Bsize))}
	if st.Blocks == 0 { // it has no size (statfs(2) of ramfs, tmpfs mounted with size=0)
		fs.left = math.MaxInt64
	}
	switch uint32(st.Type) { // signed and of different sizes on different machines
	case unix.TMPFS_MAGIC:
		fs.volatile = "tmpfs"
	case unix.RAMFS_MAGIC:
		fs.volatile = "ramfs"
	}
	return fs, nil
}
