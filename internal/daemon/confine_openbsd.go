package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/internal/optin"
)

var self, _ = os.Executable()

// fallbackUID is what the front and the tracer run as where there is no user _stopd.
const fallbackUID = 61113

// unprivileged is the user that strangers' octets are read as; -1 where this process cannot become another.
func unprivileged() int {
	if os.Geteuid() != 0 {
		return -1
	}
	if u, err := user.Lookup("_stopd"); err == nil {
		if uid, err := strconv.Atoi(u.Uid); err == nil && uid != 0 {
			return uid
		}
	}
	return fallbackUID
}

func startRestricted(cmd *exec.Cmd, _ role, _ Config) error { return cmd.Start() }

// A view is what a role sees of a path (unveil(2)).
type view struct{ path, may string }

// promises are what a role may do (pledge(2)). What else it tries fails, and does not end it. The collector has none: kern.file is
// refused whoever has any.
var promises = map[role]string{
	front:  "error stdio inet recvfd",
	tracer: "error stdio inet dns rpath",
	keeper: "error stdio rpath wpath cpath fattr flock unix recvfd",
	reader: "error stdio rpath",
}

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
	rooted := false
	if r == front || r == tracer {
		if s.UID >= 0 {
			if s.Root {
				err := changeRoot(empty)
				failed("change root directory", err)
				rooted = err == nil
			}
			failed("become user "+strconv.Itoa(s.UID), become(s.UID, s.UID))
		}
		empty.Close()
	}
	if err == nil && !rooted { // where the root is empty there is nothing to see
		failed("restrict files", restrictFiles(views))
	}
	if p, ok := promises[r]; ok {
		failed("restrict system calls", unix.PledgePromises(p))
	}
	return left
}

// viewsOf says which files a role may use. The store's lock is made where it is not there yet.
func viewsOf(r role, cfg Config) ([]view, error) {
	switch r {
	case collector:
		return []view{{"/usr/bin/getent", "rx"}, {"/usr/libexec/ld.so", "r"}, {"/dev", "r"}, {os.DevNull, "rw"}, {"/var/run/utmp", "r"}, {"/var/log/wtmp", "r"}}, nil
	case tracer:
		return []view{{"/etc/resolv.conf", "r"}, {"/etc/hosts", "r"}, {"/etc/services", "r"}, {"/etc/ssl", "r"}}, nil
	case keeper:
		dir := filepath.Clean(cfg.Store)
		key, err := evidence.LogKeyPath(cfg.Store)
		if err != nil {
			return nil, fmt.Errorf("find log key: %w", err)
		}
		tlsKey, err := tlsKeyPath(cfg.Store)
		if err != nil {
			return nil, err
		}
		return []view{{dir, "rwc"}, {dir + ".lock", "rwc"}, {key, "r"}, {tlsKey, "r"}}, nil
	}
	return nil, nil
}

// restrictFiles leaves this process what it is shown. What is not there, or has no directory to be in, needs nothing.
func restrictFiles(views []view) error {
	for _, v := range views {
		if err := unix.Unveil(v.path, v.may); err != nil && err != unix.ENOENT {
			return fmt.Errorf("unveil %s: %w", v.path, err)
		}
	}
	if len(views) == 0 { // who shows himself nothing would see everything
		if err := unix.Unveil("/nonexistent", ""); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return unix.UnveilBlock()
}

func changeRoot(dir *os.File) error {
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// become changes this process to a user, and to one group.
func become(uid, gid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return unix.Setresuid(uid, uid, uid)
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
	if err == nil {
		defer unix.Close(home)
	}
	views := []view{}
	if err == nil {
		views = append(views, view{q.Home, "r"})
	}
	if err := restrictFiles(views); err != nil {
		return optin.Files{}, fmt.Errorf("restrict files: %w", err)
	}
	if err := unix.PledgePromises(promises[reader]); err != nil {
		return optin.Files{}, fmt.Errorf("restrict system calls: %w", err)
	}
	switch err {
	case nil:
		return optin.Read(home, q.UID), nil
	case optin.ErrNoHome:
		return optin.Files{}, nil
	}
	return optin.Files{NoIdent: true}, nil // it may be there
}

var tried []string // nothing

func prove(trial) []string { return nil }
