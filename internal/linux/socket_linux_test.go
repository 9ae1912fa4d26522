package linux

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The sockets of these tests are made by system calls, so that the Go runtime neither accepts, reads nor
// closes by itself. They are held as files, which may be closed twice.

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// file holds a descriptor until the end of the test.
func file(t testing.TB, fd int, err error) *os.File {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	return f
}

func fd(f *os.File) int { return int(f.Fd()) }

func socket(t testing.TB, family, typ, proto int) *os.File {
	t.Helper()
	s, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	return file(t, s, err)
}

func socketpair(t testing.TB, typ int) (*os.File, *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	return file(t, p[0], err), file(t, p[1], err)
}

func pipe(t testing.TB) (*os.File, *os.File) {
	t.Helper()
	var p [2]int
	err := unix.Pipe2(p[:], unix.O_CLOEXEC)
	return file(t, p[0], err), file(t, p[1], err)
}

func openFile(t testing.TB, name string, flags int) *os.File {
	t.Helper()
	f, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
	return file(t, f, err)
}

func sockaddr(family int, ap netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())} // maps IPv4
}

func bind(t testing.TB, s *os.File, sa unix.Sockaddr) {
	t.Helper()
	if err := unix.Bind(fd(s), sa); err != nil {
		t.Fatal(err)
	}
}

func connect(t testing.TB, s *os.File, sa unix.Sockaddr) {
	t.Helper()
	if err := unix.Connect(fd(s), sa); err != nil {
		t.Fatal(err)
	}
}

// listen listens on a free port of an address.
func listen(t testing.TB, family int, addr netip.Addr, proto, backlog int) *os.File {
	t.Helper()
	l := socket(t, family, unix.SOCK_STREAM, proto)
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd(l), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			t.Fatal(err)
		}
	}
	bind(t, l, sockaddr(family, netip.AddrPortFrom(addr, 0)))
	if err := unix.Listen(fd(l), backlog); err != nil {
		t.Fatal(err)
	}
	return l
}

func accept(t testing.TB, l *os.File) *os.File {
	t.Helper()
	s, _, err := unix.Accept4(fd(l), unix.SOCK_CLOEXEC)
	return file(t, s, err)
}

// loopback listens on a free port of loopback until the test ends.
func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connection returns two ends of a new connection on loopback.
func connection(t testing.TB, l net.Listener) (a, b *net.TCPConn) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// dial connects to a listener and returns both ends; to is the address by which it is reached.
func dial(t testing.TB, l *os.File, family int, to netip.Addr, proto int) (client, server *os.File) {
	t.Helper()
	client = socket(t, family, unix.SOCK_STREAM, proto)
	connect(t, client, sockaddr(family, netip.AddrPortFrom(to, localOf(t, l).Port())))
	return client, accept(t, l)
}

func localOf(t testing.TB, s *os.File) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getsockname(fd(s))
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(sa)
}

func remoteOf(t testing.TB, s *os.File) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getpeername(fd(s))
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(sa)
}
