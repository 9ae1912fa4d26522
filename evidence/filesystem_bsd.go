//go:build darwin || freebsd

package evidence

import "golang.org/x/sys/unix"

func fileSystemOf(path string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fileSystem{}, err
	}
	// FreeBSD's may be negative: then root alone has room.
	fs := fileSystem{left: roomOf(uint64(max(0, int64(st.Bavail))), uint64(st.Bsize))}
	if name := unix.ByteSliceToString(st.Fstypename[:]); name == "tmpfs" {
		fs.volatile = name
	}
	return fs, nil
}
