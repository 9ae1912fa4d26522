package evidence

import "golang.org/x/sys/unix"

func volatileFileSystem(path string) (string, error) {
	var st unix.Statvfs_t
	if err := unix.Statvfs(path, &st); err != nil {
		return "", err
	}
	name := make([]byte, 0, len(st.Basetype))
	for _, c := range st.Basetype {
		if c == 0 {
			break
		}
		name = append(name, byte(c))
	}
	if string(name) == "tmpfs" {
		return "tmpfs", nil
	}
	return "", nil
}
