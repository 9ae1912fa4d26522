//go:build darwin || freebsd

package evidence

import "golang.org/x/sys/unix"

func volatileFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	if name := unix.ByteSliceToString(st.Fstypename[:]); name == "tmpfs" {
		return name, nil
	}
	return "", nil
}
