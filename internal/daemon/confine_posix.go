//go:build unix && !linux

package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/optin"
)

var self, _ = os.Executable()

// fallbackUID is what the front and the tracer run as where there is no user for it: no system gives it to anybody.
const fallbackUID = 61113

// unprivileged is the user that strangers' octets are read as; -1 where this process cannot become another.
func unprivileged() int {
	if os.Geteuid() != 0 {
		return -1
	}
	for _, name := range []string{"_stopd", "stopd"} {
		if u, err := user.Lookup(name); err == nil {
			if uid, err := strconv.Atoi(u.Uid); err == nil && uid != 0 {
				return uid
			}
		}
	}
	return fallbackUID
}

func startRestricted(cmd *exec.Cmd, _ role, _ Config) error { return cmd.Start() }

// confine gives up what the role does not need, in the process itself. The front and the tracer have an empty directory for
// it. It returns what could not be given up.
func confine(r role, s started, empty *os.File) (left []string) {
	failed := func(what string, err error) {
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", what, err))
		}
	}
	views, err := viewsOf(r, s.Config)
	failed("restrict files", err)
	if r == front || r == tracer {
		if s.UID >= 0 {
			if s.Root {
				failed("change root directory", changeRoot(empty))
			}
			failed("become user "+strconv.Itoa(s.UID), become(s.UID, s.UID))
		}
		empty.Close()
	}
	failed("restrict files and system calls", restrict(r, views))
	return left
}

func changeRoot(dir *os.File) error {
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// become changes this process, real, effective and saved, to a user and to one group.
func become(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}

// filesOf becomes a user, gives up all but reading in his home, and reads his files there.
func filesOf(q optin.Question) (optin.Files, error) {
	if os.Geteuid() == 0 {
		if err := become(int(q.UID), int(q.GID)); err != nil {
			return optin.Files{}, fmt.Errorf("become user %d: %w", q.UID, err)
		}
	}
	if os.Geteuid() != int(q.UID) || os.Getuid() != int(q.UID) {
		return optin.Files{}, fmt.Errorf("become user %d: it is %d", q.UID, os.Geteuid())
	}
	home, err := optin.Open(q.Home)
	var views []view
	if err == nil {
		defer unix.Close(home)
		views = []view{{q.Home, "r"}}
	}
	if err := restrict(reader, views); err != nil {
		return optin.Files{}, err
	}
	switch {
	case err == nil:
		return optin.Read(home, q.UID), nil
	case errors.Is(err, optin.ErrNoHome):
		return optin.Files{}, nil
	}
	return optin.Files{NoIdent: true}, nil // it may be there
}

// A view is what a role sees of a path, in the words of unveil(2).
type view struct{ path, may string }

var tried []string // nothing

func prove(trial) []string { return nil }
