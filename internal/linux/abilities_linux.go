package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/recorder"
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
	say("descriptors of all processes by BPF", h.Accelerate(), "they are read by /proc, which takes longer and does not count who holds a socket without a descriptor")
	say("connections and processes that have ended", h.Remember(Recorder{Memory: recorder.Smallest, Keep: time.Minute}), "they are not remembered: what had ended before a question is not found")
	out[len(out)-1] += but(h.Unremembered())
	say("what passes through a process", h.TryWatch(), "which client of a proxy feeds a connection is told by signs alone, and never for certain; it takes BPF and Linux 6.3")
	say("copies of sockets by pidfd_getfd", tryCopy(), "sockets are listed in the daemon's own network namespace only")
	_, err = h.conntrack.entries(context.Background())
	if errors.Is(err, errNoConntrack) {
		out = append(out, "connection tracking: none in this kernel: no addresses are translated by it")
	} else {
		say("connection tracking", err, "connections whose addresses this host translates are not found; run as root, or with CAP_NET_ADMIN")
	}
	say("other network namespaces", trySpaces(h), "connections of containers are not found; run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE")
	return out
}

// but is what is said of an ability that lacks something.
func but(lacks []error) (said string) {
	for _, err := range lacks {
		said += ", but " + err.Error()
	}
	return said
}

// trySpaces asks in each network namespace that there is; where there is none but our own, whether its own
// may be entered tells.
func trySpaces(h *Host) error {
	set := h.newSpaces()
	defer set.close()
	if _, err := set.all(context.Background()); err != nil {
		return err
	}
	seen, err := h.spaces(context.Background(), set.begun.Add(-spacesAge))
	if err != nil {
		return err
	}
	refused := len(seen) - len(set.others) - 1
	if refused > 0 {
		return fmt.Errorf("%d of %d may not be opened", refused, len(seen))
	}
	self, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer self.Close()
	n := newRTNetlink(int(self.Fd()))
	defer n.close()
	_, err = n.link(context.Background(), loopbackLink)
	return err
}

// tryProcesses counts the processes, and those whose descriptors may not be listed.
func tryProcesses() (seen, unread int) {
	pids, err := allPIDs()
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

// tryCopy copies a descriptor of a process of another user, whichever lets it; where there is none, of the parent. Those of
// one's own processes may always be copied.
func tryCopy() error {
	err := copyOf(os.Getppid())
	pids, _ := allPIDs() // tryProcesses tells
	for _, pid := range pids {
		var of unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d", pid), &of) != nil || int(of.Uid) == os.Geteuid() {
			continue
		}
		if other := copyOf(pid); other == nil {
			return nil
		} else if !errors.Is(other, unix.ESRCH) {
			err = other
		}
	}
	return err
}

// copyOf copies a descriptor of a process.
func copyOf(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
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
