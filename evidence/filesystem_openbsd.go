package evidence

import "golang.org/x/sys/unix"

func fileSystemOf(path string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fileSystem{}, err
	}
	fs := fileSystem{left: roomOf(uint64(max(0, st.F_bavail)), uint64(st.F_bsize))} // negative: root alone has room
	switch name := unix.ByteSliceToString(st.F_fstypename[:]); name {
	case "mfs", "tmpfs":
		fs.volatile = name
	}
	return fs, nil
}
