package daemon

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/optin"
)

// filesOf becomes a user, gives up all but reading in his home, and reads his files there. The calling goroutine keeps its thread:
// Landlock binds that one, and nothing else runs in a reader.
func filesOf(q optin.Question) (optin.Files, error) {
	runtime.LockOSThread()
	if err := becomeUser(q.UID, q.GID); err != nil {
		return optin.Files{}, err
	}
	if err := restrictCalls(reader); err != nil {
		return optin.Files{}, fmt.Errorf("restrict system calls: %w", err)
	}
	home, err := optin.Open(q.Home)
	if errors.Is(err, optin.ErrNoHome) {
		restrictFiles(reader, nil)
		return optin.Files{}, nil
	}
	if err != nil {
		return optin.Files{NoIdent: true}, nil // it may be there
	}
	defer unix.Close(home)
	restrictFiles(reader, []rule{{fmt.Sprintf("/proc/self/fd/%d", home), readFile}})
	return optin.Read(home, q.UID), nil
}

// becomeUser gives all threads a user's id and his first group, and nothing beyond that: no other groups, and no capabilities,
// not even root.
func becomeUser(uid, gid uint32) error {
	if os.Geteuid() == 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("give up groups: %w", err)
		}
		if err := syscall.Setresgid(int(gid), int(gid), int(gid)); err != nil {
			return fmt.Errorf("become group %d: %w", gid, err)
		}
		if err := syscall.Setresuid(int(uid), int(uid), int(uid)); err != nil {
			return fmt.Errorf("become user %d: %w", uid, err)
		}
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if err := unix.Capset(&header, &none[0]); err != nil {
			return fmt.Errorf("give up capabilities: %w", err)
		}
	}
	if os.Geteuid() != int(uid) || os.Getuid() != int(uid) {
		return fmt.Errorf("become user %d: it is %d", uid, os.Geteuid())
	}
	// Or the user could make it say what he likes, and learn what the daemon asks.
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
