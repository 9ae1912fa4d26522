package linux

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// The sockets of these tests are made by system calls, so that the Go runtime neither accepts, reads nor
// closes by itself.

func sockaddr(family int, ap netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())} // maps IPv4
}

// socket makes a socket that the test closes at its end.
func socket(t testing.TB, family, typ, proto int) int {
	t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd) })
	return fd
}

// closeFD closes a descriptor that the test may have closed; nobody else opens any meanwhile that matters.
var closed = map[int]bool{}

func closeFD(fd int) {
	unix.Close(fd)
}

// listen listens on a loopback address with a free port.
func listen(t testing.TB, family int, addr netip.Addr, proto, backlog int) (int, netip.AddrPort) {
	t.Helper()
	fd := socket(t, family, unix.SOCK_STREAM, proto)
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sockaddr(family, netip.AddrPortFrom(addr, 0))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	return fd, localOf(t, fd)
}

func localOf(t testing.TB, fd int) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(sa)
}
