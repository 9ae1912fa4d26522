package linux

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that cannot be read has ended, or is hidden.
func TestWhyUnread(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if why := whyUnread(cmd.Process.Pid, unix.ENOENT); !strings.HasPrefix(why, "it runs") {
		t.Errorf("of one that runs it says %q", why)
	}
	if why := whyUnread(cmd.Process.Pid, unix.EMFILE); why != "it could not be read: too many open files" {
		t.Errorf("of one that could not be opened it says %q", why)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if why := whyUnread(cmd.Process.Pid, unix.ENOENT); !strings.HasPrefix(why, "it ended") {
		t.Errorf("of one that has ended it says %q", why)
	}
}

// A network namespace is found by a process over whose directory in /proc somebody has mounted something.
func TestHiddenSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it mounts")
	}
	other := start(t, "netns", nil, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET} })
	if c := start(t, "looker", nil, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "STOPD_TEST_HIDE="+strconv.Itoa(other.pid))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}); c.line != "false true" {
		t.Errorf("by /proc, and by a procfs of its own: %s", c.line)
	}
}

// lookerRole hides the process in its environment by a mount in its own mount namespace, and says whether it finds that process's network
// namespace: by /proc, and by a procfs of its own.
func lookerRole() (string, error) {
	dir := "/proc/" + os.Getenv("STOPD_TEST_HIDE")
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/net", &st); err != nil {
		return "", err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		return "", err
	}
	h, err := Open()
	if err != nil {
		return "", err
	}
	found := func() (bool, error) {
		s := h.newSpaces()
		defer s.close()
		paths, err := listSpaces()
		if err == nil {
			err = s.openPaths(paths)
		}
		return s.of(st.Ino) != nil, err
	}
	byProc, err := found()
	if err != nil {
		return "", err
	}
	if err := KeepProc(); err != nil {
		return "", err
	}
	byOwn, err := found()
	return fmt.Sprint(byProc, " ", byOwn), err
}
