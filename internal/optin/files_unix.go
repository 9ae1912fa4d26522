//go:build unix

package optin

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Open opens a home, for Read; the error is [ErrNoHome] where it is none. It may wait for ever, as the file system does.
func Open(home string) (int, error) {
	if home == "" {
		return -1, ErrNoHome
	}
	if home[0] != '/' {
		return -1, fmt.Errorf("open home %q: not absolute", home)
	}
	fd, err := unix.Open(home, toLook|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return -1, ErrNoHome
	}
	return fd, err
}

// ErrNoHome says that a user has no home, and so no files.
var ErrNoHome = errors.New("no home")

// Read reads a user's files in his home, an open directory. Only regular files are opened, and only those that belong to the user and
// that not everybody may write; their links are not followed. It may wait for ever, as the file system does.
func Read(home int, uid uint32) Files {
	var st unix.Stat_t
	return Files{
		NoIdent: !errors.Is(unix.Fstatat(home, ".noident", &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT),
		Oidentd: []File{readFile(home, ".config/oidentd.conf", uid), readFile(home, ".oidentd.conf", uid)},
		List:    readFile(home, ".ident", uid),
	}
}

func readFile(home int, name string, uid uint32) File {
	in, err := openUsers(home, name, uid)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return File{}
	}
	if err != nil {
		return File{Unreadable: true}
	}
	defer unix.Close(in)
	b := make([]byte, MaxFile+1)
	n := 0
	for n < len(b) {
		m, err := unix.Read(in, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return File{Unreadable: true}
		}
		if m == 0 {
			return File{Text: b[:n]}
		}
		n += m
	}
	return File{Unreadable: true} // it grew
}

// errNotUsers says that a file is none that a user's word is taken from.
var errNotUsers = errors.New("not a regular file of the user's own")

func checkUsers(st unix.Stat_t, uid uint32) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != uid || st.Mode&0o002 != 0 || st.Size > MaxFile {
		return errNotUsers
	}
	return nil
}
