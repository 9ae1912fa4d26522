package evidence

import "golang.org/x/sys/unix"

// volatileFileSystem names the file system of path if it does not survive a reboot.
func volatileFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	switch uint32(st.Type) { // signed and of different sizes on different machines
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.RAMFS_MAGIC:
		return "ramfs", nil
	}
	return "", nil
}
