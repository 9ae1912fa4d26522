package linux

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// Abilities says, a line each, what can be seen of this machine with the privileges that the program has,
// found by trying.
func Abilities() []string {
	var out []string
	say := func(what string, err error, without string) {
		if err != nil {
			out = append(out, fmt.Sprintf("%s: no (%v): %s", what, err, without))
			return
		}
		out = append(out, what+": yes")
	}
	h, err := Open()
	if err != nil {
		return []string{"sockets by sock_diag: no: " + err.Error()}
	}
	defer h.Close()
	_, err = h.diag.dump(context.Background(), host.TCP)
	say("sockets by sock_diag", err, "no connection is found")
	seen, unread := tryProcesses()
	if unread > 0 {
		err = fmt.Errorf("%d of %d processes could not be read", unread, seen)
	}
	say("descriptors of all processes", err, "they are gaps in reports; run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
	say("copies of sockets by pidfd_getfd", tryCopy(), "sockets are listed in the daemon's own network namespace only")
	return out
}

// tryProcesses counts the processes, and those whose descriptors may not be listed.
func tryProcesses() (seen, unread int) {
	pids, err := PIDs()
	if err != nil {
		return 0, 1
	}
	for _, pid := range pids {
		_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		seen++
		if err != nil && !gone(err) {
			unread++
		}
	}
	return seen, unread
}

// tryCopy copies a descriptor of the parent process, which may be somebody else's.
func tryCopy() error {
	pidfd, err := unix.PidfdOpen(os.Getppid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err == unix.EBADF {
		return nil // it has no descriptor 0, but we could have had it
	}
	if err != nil {
		return fmt.Errorf("pidfd_getfd: %w", err)
	}
	unix.Close(fd)
	return nil
}
