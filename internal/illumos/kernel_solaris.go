package illumos

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Open prepares to look at this machine.
func Open() (*Host, error) {
	h := newHost(kernel{read: read, list: list, link: link, network: network, addresses: posix.Addresses, uname: uname})
	if _, err := h.proc(os.Getpid()); err != nil { // Solaris 11.4, and illumos of 2024, have fdinfo
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	return h, nil
}

func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return host.ErrNotFound
	}
	return err
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, missing(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInfo))
	return b, missing(err)
}

func list(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, missing(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, missing(err)
}

func link(path string) (string, error) {
	s, err := os.Readlink(path)
	return s, missing(err)
}

func uname() (u [5]string, err error) {
	var n unix.Utsname
	if err := unix.Uname(&n); err != nil {
		return u, err
	}
	for i, field := range [][]byte{n.Sysname[:], n.Nodename[:], n.Release[:], n.Version[:], n.Machine[:]} {
		u[i] = str(field)
	}
	return u, nil
}

const (
	pushModule = 0x5302 // I_PUSH (stropts.h)
	maxAnswer  = 64 << 20
	// answerTime is how long the network stack may take for one table, in milliseconds.
	answerTime = 5000
)

// network asks the network stack for its tables as netstat(8) does: a message to /dev/arp with the modules of the protocols upon it,
// which is answered by as many as there are tables, each with its data, and one without.
func network() ([]message, error) {
	fd, err := unix.Open("/dev/arp", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/arp: %w", err)
	}
	defer unix.Close(fd)
	for _, module := range []string{"tcp", "udp", "icmp"} {
		if err := unix.IoctlSetString(fd, pushModule, module); err != nil {
			return nil, fmt.Errorf("push %s: %w", module, err)
		}
	}
	if err := unix.Putmsg(fd, formatRequest(), nil, 0); err != nil {
		return nil, fmt.Errorf("ask the network stack: %w", err)
	}
	var ms []message
	total := 0
	for {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI}}, answerTime); err == unix.EINTR {
			continue
		} else if err != nil || n == 0 {
			return nil, fmt.Errorf("wait for the network stack: %w", errors.Join(err, os.ErrDeadlineExceeded))
		}
		control, _, _, err := unix.Getmsg(fd, make([]byte, 512), nil)
		if err != nil {
			return nil, fmt.Errorf("read answer of the network stack: %w", err)
		}
		level, name, size, err := parseAck(control)
		if err != nil {
			return nil, err
		}
		if total += int(size); total > maxAnswer {
			return nil, fmt.Errorf("read tables of the network stack: bound: %d octets", maxAnswer)
		}
		// An empty table has data, of no length; the last answer has none.
		_, data, _, err := unix.Getmsg(fd, nil, make([]byte, max(size, 1)))
		if errors.Is(err, unix.EAGAIN) && size == 0 {
			return ms, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read table of the network stack: %w", err)
		}
		ms = append(ms, message{level, name, data})
	}
}
