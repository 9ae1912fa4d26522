package linux

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/host/hosttest"
)

// TestHost asks this machine, and a recording of it, what every host must answer.
func TestHost(t *testing.T) {
	h := openHost(t)
	a := arrange(t)
	t.Run("live", func(t *testing.T) { hosttest.Run(t, h, a) })
	t.Run("bpf", func(t *testing.T) { hosttest.Run(t, accelerated(t), a) })

	var pids []int
	for _, p := range a.Processes {
		pids = append(pids, p.PID)
	}
	r, err := host.Record(t.Context(), h, openSnapshot(t, h), pids)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := host.ParseRecording(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("replay", func(t *testing.T) { hosttest.Run(t, &host.Replay{Recording: back}, a) })
}

// An arrangement is made of this process, called self, and children that only hold what they were given.
// What both ends of are given away, this process closes.
type arrangement struct {
	hosttest.Arrangement
	t    *testing.T
	exe  string
	gave []*os.File
}

// hold starts a process that holds the given files, as descriptors 3, 4 and so on.
func (a *arrangement) hold(name string, files ...*os.File) int {
	dir := a.t.TempDir()
	c := start(a.t, "hold", files, func(cmd *exec.Cmd) {
		cmd.Path = filepath.Join(dir, name)
		cmd.Args = []string{name, "", "with blanks\nand lines", "ä"}
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := os.Link(a.exe, cmd.Path); err != nil {
			a.t.Fatal(err)
		}
	})
	a.gave = append(a.gave, files...)
	a.Processes = append(a.Processes, hosttest.Process{PID: c.pid, PPID: os.Getpid(), Name: name[:min(len(name), 15)],
		Exe: filepath.Join(dir, name), Args: []string{name, "", "with blanks\nand lines", "ä"}, CWD: dir,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Session: c.pid, PGRP: c.pid})
	return c.pid
}

func arrange(t *testing.T) hosttest.Arrangement {
	a := &arrangement{t: t, exe: filepath.Join(t.TempDir(), "program")}
	copyProgram(t, a.exe)
	a.connections()
	a.pipes()
	a.unix()
	a.terminal()
	a.datagrams()
	self(t, a)
	a.Absent = append(a.Absent, host.Flow{Protocol: host.TCP, Local: netip.MustParseAddrPort("198.51.100.1:22"), Remote: netip.MustParseAddrPort("203.0.113.9:40000")})
	c := start(t, "hold", nil, nil)
	c.end()
	a.Ended = c.pid
	for _, f := range a.gave {
		f.Close()
	}
	return a.Arrangement
}

// copyProgram copies the test program, so that each process can have one of its own name.
func copyProgram(t *testing.T, to string) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o700); err != nil {
		t.Fatal(err)
	}
}

// self adds this process: parent of the others.
func self(t *testing.T, a *arrangement) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(exe)
	a.Processes = append(a.Processes, hosttest.Process{PID: os.Getpid(), PPID: os.Getppid(), Name: name[:min(len(name), 15)], Exe: exe,
		Args: os.Args, CWD: cwd, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Session: session, PGRP: unix.Getpgrp()})
}

// connections makes TCP connections: the one who connects is shared by a parent and its child.
func (a *arrangement) connections() {
	for _, x := range addressings {
		if x.name == "IPv4 any" {
			continue
		}
		l := listen(a.t, x.listen, x.addr, 0, 1)
		c, s := dial(a.t, l, x.family, x.to, 0)
		write(a.t, c, 100)
		local, remote := localOf(a.t, c), remoteOf(a.t, c)
		child := a.hold("client "+strconv.Itoa(x.family), c)
		a.gave = a.gave[:len(a.gave)-1] // this process keeps it
		server := a.hold("server "+strconv.Itoa(x.family), s, s)
		near := []hosttest.End{{PID: os.Getpid(), FD: fd(c), Mode: host.ReadWrite}, {PID: child, FD: 3, Mode: host.ReadWrite}}
		far := []hosttest.End{{PID: server, FD: 3, Mode: host.ReadWrite}, {PID: server, FD: 4, Mode: host.ReadWrite}}
		add := func(name string, local, remote netip.AddrPort, dir host.Direction, ends []hosttest.End) {
			a.Connections = append(a.Connections, hosttest.Connection{Name: x.name + " " + name, State: "ESTABLISHED", Direction: dir,
				Flow: host.Flow{Protocol: host.TCP, Local: local, Remote: remote}, UID: uint32(os.Getuid()), Holders: ends})
		}
		add("client", local, remote, host.Outbound, near)
		add("server", remote, local, host.Inbound, far)
		a.Channels = append(a.Channels, hosttest.Channel{Name: x.name, Kind: host.TCP,
			Sides: []hosttest.Side{{Holders: near, Peers: true}, {Holders: far, Peers: true}}})
		listener := netip.AddrPortFrom(x.to, localOf(a.t, l).Port())
		a.Absent = append(a.Absent, host.Flow{Protocol: host.TCP, Local: listener, Remote: netip.AddrPortFrom(x.to, 9)},
			host.Flow{Protocol: host.TCP, Local: localOf(a.t, l), Remote: netip.AddrPortFrom(unspecified(x.to), 0)})
	}
}

// unspecified is the remote address of a socket that has none.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (a *arrangement) pipes() {
	r, w := pipe(a.t)
	reader := a.hold("pipe reader", r)
	writer := a.hold("pipe writer", w, w)
	both := a.hold("pipe both", r, w)
	one := func(name string, kind host.Kind, path string, ends ...hosttest.End) {
		a.Channels = append(a.Channels, hosttest.Channel{Name: name, Kind: kind, Sides: []hosttest.Side{{Holders: ends, Path: path, Peers: true}}})
	}
	one("pipe", host.Pipe, "", hosttest.End{PID: reader, FD: 3, Mode: host.Read},
		hosttest.End{PID: writer, FD: 3, Mode: host.Write}, hosttest.End{PID: writer, FD: 4, Mode: host.Write},
		hosttest.End{PID: both, FD: 3, Mode: host.ReadWrite}, hosttest.End{PID: both, FD: 4, Mode: host.ReadWrite})

	path := filepath.Join(a.t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		a.t.Fatal(err)
	}
	rw := openFile(a.t, path, unix.O_RDWR)
	reader = a.hold("fifo reader", openFile(a.t, path, unix.O_RDONLY))
	writer = a.hold("fifo writer", openFile(a.t, path, unix.O_WRONLY))
	rw.Close()
	signal := eventfd(a.t)
	x, y := a.hold("signal", signal), a.hold("signalled", signal)
	one("eventfd", host.EventFD, "", hosttest.End{PID: x, FD: 3, Mode: host.ReadWrite}, hosttest.End{PID: y, FD: 3, Mode: host.ReadWrite})
	one("fifo", host.FIFO, path, hosttest.End{PID: reader, FD: 3, Mode: host.Read}, hosttest.End{PID: writer, FD: 3, Mode: host.Write})
}

func (a *arrangement) unix() {
	add := func(name string, x, y *os.File, sides ...hosttest.Side) {
		for i, f := range []*os.File{x, y} {
			pid := a.hold(name+strconv.Itoa(i), f)
			mode := host.ReadWrite
			if sides[i].Type == "dgram" && sides[i].PeerPath != "" {
				mode = host.Write // nobody can send to it
			}
			sides[i].Holders = []hosttest.End{{PID: pid, FD: 3, Mode: mode}}
			sides[i].Peers = true
		}
		a.Channels = append(a.Channels, hosttest.Channel{Name: name, Kind: host.Unix, Sides: sides})
	}
	x, y := socketpair(a.t, unix.SOCK_STREAM)
	add("socketpair", x, y, hosttest.Side{Type: "stream"}, hosttest.Side{Type: "stream"})
	x, y = socketpair(a.t, unix.SOCK_SEQPACKET)
	add("seqpacket", x, y, hosttest.Side{Type: "seqpacket"}, hosttest.Side{Type: "seqpacket"})

	named := filepath.Join(a.t.TempDir(), "socket")
	for name, path := range map[string]string{"named": named, "abstract": "@stopd test " + strconv.Itoa(os.Getpid())} {
		l := socket(a.t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
		bind(a.t, l, &unix.SockaddrUnix{Name: path})
		if err := unix.Listen(fd(l), 1); err != nil {
			a.t.Fatal(err)
		}
		x := socket(a.t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
		connect(a.t, x, &unix.SockaddrUnix{Name: path})
		add(name, x, accept(a.t, l), hosttest.Side{Type: "stream", PeerPath: path}, hosttest.Side{Type: "stream", Path: path})
	}
	path := filepath.Join(a.t.TempDir(), "log")
	y = socket(a.t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	bind(a.t, y, &unix.SockaddrUnix{Name: path})
	x = socket(a.t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	connect(a.t, x, &unix.SockaddrUnix{Name: path})
	add("dgram", x, y, hosttest.Side{Type: "dgram", PeerPath: path}, hosttest.Side{Type: "dgram", Path: path})
}

func (a *arrangement) terminal() {
	master := openFile(a.t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(fd(master), unix.TIOCSPTLCK, 0); err != nil {
		a.t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd(master), unix.TIOCGPTN)
	if err != nil {
		a.t.Fatal(err)
	}
	path := "/dev/pts/" + strconv.Itoa(n)
	slave := openFile(a.t, path, unix.O_RDWR|unix.O_NOCTTY)
	emulator := a.hold("terminal", master)
	var holders []hosttest.End
	for _, name := range []string{"shell", "editor"} {
		pid := a.hold(name, slave, slave)
		holders = append(holders, hosttest.End{PID: pid, FD: 3, Mode: host.ReadWrite}, hosttest.End{PID: pid, FD: 4, Mode: host.ReadWrite})
	}
	a.Channels = append(a.Channels, hosttest.Channel{Name: "pty", Kind: host.PTY, Sides: []hosttest.Side{
		{Holders: []hosttest.End{{PID: emulator, FD: 3, Mode: host.ReadWrite}}, Path: a.target(master), Side: host.Master, Peers: true},
		{Holders: holders, Path: path, Side: host.Slave, Peers: true}}})
}

// target is what the system calls an open file: the multiplexer may be a link.
func (a *arrangement) target(f *os.File) string {
	s, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd(f)))
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *arrangement) datagrams() {
	for _, tc := range []struct {
		name   string
		family int
		addr   netip.Addr
		proto  int
		both   bool // connected both ways
	}{
		{"udp both ways", unix.AF_INET, loopback4, 0, true},
		{"udp one way", unix.AF_INET, loopback4, 0, false},
		{"udp6 one way", unix.AF_INET6, loopback6, 0, false},
		{"udp-lite", unix.AF_INET, loopback4, protoLite, true},
	} {
		x := socket(a.t, tc.family, unix.SOCK_DGRAM, tc.proto)
		y := socket(a.t, tc.family, unix.SOCK_DGRAM, tc.proto)
		bind(a.t, y, sockaddr(tc.family, netip.AddrPortFrom(tc.addr, 0)))
		connect(a.t, x, sockaddr(tc.family, localOf(a.t, y)))
		if tc.both {
			connect(a.t, y, sockaddr(tc.family, localOf(a.t, x)))
		}
		if !tc.both {
			a.Absent = append(a.Absent, host.Flow{Protocol: host.UDP, Local: localOf(a.t, y), Remote: localOf(a.t, x)})
		}
		var sides []hosttest.Side
		for i, f := range []*os.File{x, y} {
			pid := a.hold(tc.name+strconv.Itoa(i), f)
			sides = append(sides, hosttest.Side{Holders: []hosttest.End{{PID: pid, FD: 3, Mode: host.ReadWrite}}, Peers: true})
			if tc.proto == 0 && (i == 0 || tc.both) { // nobody asks about others
				a.Connections = append(a.Connections, hosttest.Connection{Name: tc.name + strconv.Itoa(i), State: "ESTABLISHED", Direction: host.Outbound,
					Flow: host.Flow{Protocol: host.UDP, Local: localOf(a.t, f), Remote: remoteOf(a.t, f)}, UID: uint32(os.Getuid()), Holders: sides[i].Holders})
			}
		}
		a.Channels = append(a.Channels, hosttest.Channel{Name: tc.name, Kind: host.UDP, Sides: sides})
	}
}
