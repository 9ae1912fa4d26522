package evidence

import "golang.org/x/sys/unix"

func volatileFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	switch name := unix.ByteSliceToString(st.F_fstypename[:]); name {
	case "mfs", "tmpfs":
		return name, nil
	}
	return "", nil
}
