package linux

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// ownProc is the descriptor of this program's own mount of procfs, 0 where there is none.
var ownProc atomic.Int32

// KeepProc mounts procfs for this program alone: at no place in the tree of files, so that nobody can mount anything over it. Who
// is root hides a process from all who read /proc by a mount over its directory there. It takes CAP_SYS_ADMIN, and fsopen(2),
// fsconfig(2) and fsmount(2).
func KeepProc() error {
	// One of another PID namespace, such as that of a container's host, is there on purpose.
	if self, err := os.Readlink("/proc/self"); err == nil && self != strconv.Itoa(os.Getpid()) {
		return nil
	}
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open procfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("make procfs: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("mount procfs: %w", err)
	}
	if old := ownProc.Swap(int32(fd)); old != 0 {
		unix.Close(int(old))
	}
	return nil
}

// openProcFS opens the directory of all processes.
func openProcFS() (int, error) {
	at, path := unix.AT_FDCWD, "/proc"
	if own := ownProc.Load(); own != 0 {
		at, path = int(own), "."
	}
	root, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc: %w", err)
	}
	return root, nil
}

// whyUnread says why what a process holds is known and it itself cannot be read.
func whyUnread(pid int, err error) string {
	switch {
	case !gone(err) && !errors.Is(err, host.ErrNotFound):
		return "it could not be read: " + err.Error()
	case ownProc.Load() == 0 && sameProcesses() == nil && unix.Tgkill(pid, pid, 0) == nil:
		return "it runs, and /proc does not have it: something may be mounted there to hide it"
	}
	return "it ended while the host was looked at"
}
