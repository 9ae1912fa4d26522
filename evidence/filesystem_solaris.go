package evidence

import "golang.org/x/sys/unix"

func fileSystemOf(path string) (fileSystem, error) {
	var st unix.Statvfs_t
	if err := unix.Statvfs(path, &st); err != nil {
		return fileSystem{}, err
	}
	name := make([]byte, 0, len(st.Basetype))
	for _, c := range st.Basetype {
		if c == 0 {
			break
		}
		name = append(name, byte(c))
	}
	fs := fileSystem{left: roomOf(st.Bavail, st.Frsize)}
	if string(name) == "tmpfs" {
		fs.volatile = "tmpfs"
	}
	return fs, nil
}
