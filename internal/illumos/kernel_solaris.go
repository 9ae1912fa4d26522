package illumos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// Open prepares to look at this machine.
func Open() (*Host, error) {
	h := newHost(kernel{read: read, list: list, link: link, network: network, addresses: posix.Addresses, uname: uname})
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	return h, nil
}

// check compares what /proc says of this process with what other calls do, by a pipe, a device and a connected socket.
func (h *Host) check() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	defer write.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer far.Close()
	near, err := net.DialUDP("udp4", nil, far.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return err
	}
	defer near.Close()
	socket, err := near.File()
	if err != nil {
		return err
	}
	defer socket.Close()

	p, err := h.proc(context.Background(), os.Getpid())
	if err != nil {
		return err
	}
	pgid, err := unix.Getpgid(0)
	if err != nil {
		return err
	}
	sid, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	err = p.compareIDs(psinfo{pid: os.Getpid(), ppid: os.Getppid(), pgid: pgid, sid: sid, ruid: uint32(os.Getuid()), euid: uint32(os.Geteuid()),
		rgid: uint32(os.Getgid()), egid: uint32(os.Getegid())})
	if err != nil {
		return err
	}
	for _, f := range []*os.File{read, write, null, socket} {
		o, err := ownOf(int(f.Fd()))
		if err != nil {
			return err
		}
		if f == socket {
			o.kind, o.local, o.remote = socketDatagram, near.LocalAddr().(*net.UDPAddr).AddrPort(), near.RemoteAddr().(*net.UDPAddr).AddrPort()
		}
		i := slices.IndexFunc(p.infos, func(i info) bool { return i.fd == o.fd })
		if i < 0 {
			return fmt.Errorf("descriptor %d of this process is not in /proc: %w", o.fd, errors.ErrUnsupported)
		}
		if err := o.compare(p.infos[i]); err != nil {
			return err
		}
	}
	return nil
}

func ownOf(fd int) (own, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return own{}, fmt.Errorf("fstat: %w", err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return own{}, fmt.Errorf("fcntl: %w", err)
	}
	return own{fd: fd, mode: st.Mode, inode: st.Ino, dev: st.Dev, rdev: st.Rdev, access: uint32(flags) & unix.O_ACCMODE}, nil
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
	b, err := upTo(maxFile, f)
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
