package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The addresses of the network namespace that everything runs in. The far host's is taken away once its
// connections stand, and so are its ends of them, so that they are those of another host: nothing is ever sent
// over them.
var (
	here  = netip.MustParseAddr("192.0.2.1")
	far   = netip.MustParseAddr("198.51.100.7")
	asked = [2]netip.AddrPort{netip.AddrPortFrom(here, 40001), netip.AddrPortFrom(far, 23)}
)

// Users of what is arranged: whoever is asked about, and all others.
const (
	nobody  = 65534
	another = 65533
)

// maxFiles is the most descriptors that one process is given.
const maxFiles = 20000

// arrangements make the files that plants hold, and say who holds what.
var arrangements = map[string]func(size int) ([]plant, error){
	"connections": connections,
	"login":       func(int) ([]plant, error) { return login() },
	"complex":     func(int) ([]plant, error) { return complexTree() },
	"others":      others,
	"many":        func(n int) ([]plant, error) { return many(n, 0) },
	"joined":      joined,
}

// connections is processes that hold so many sockets of connections on loopback, both ends.
func connections(sockets int) ([]plant, error) {
	const each = 4000 // of the 28,000 ports that connections with one listener may have
	for i := 0; i < sockets/2; {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i/each)}), 0)
		l, a, err := listen(a)
		if err != nil {
			return nil, err
		}
		for n := 0; n < each && i < sockets/2; n, i = n+1, i+1 {
			if _, _, err := connect(l, netip.AddrPort{}, a); err != nil {
				return nil, err
			}
		}
		unix.Close(l)
	}
	return []plant{{parent: -1, all: true}}, nil
}

// login is the six processes of the thesis's Figure 3.4, as a system of today has them: init, sshd, its two
// for the session, a shell, and a telnet that holds the asked connection. They have no channels.
func login() ([]plant, error) {
	n := new(network)
	ssh := n.listen(netip.AddrPortFrom(here, 22))
	in, _ := n.accept(ssh, netip.AddrPortFrom(far, 50001))
	out := n.asked()
	return []plant{
		{parent: -1}, // somebody else
		{parent: -1, files: []int{ssh.fd}},
		{parent: 1, files: []int{ssh.fd, in}},
		{parent: 2, files: []int{in}, uid: nobody},
		{parent: 3, uid: nobody},
		{parent: 4, files: []int{out}, uid: nobody},
	}, n.err
}

// complexTree is the 14 processes and six channels of the thesis's Figure 3.6 and Appendix B.2. Where
// OpenBSD had a swapper above init there is one process more between init and P3.
func complexTree() ([]plant, error) {
	n := new(network)
	l1 := n.listen(netip.AddrPortFrom(here, 8010))
	l2 := n.listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8011))
	l3 := n.listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 8012))
	in, _ := n.accept(l1, netip.AddrPortFrom(far, 1874))
	p2, p1 := n.accept(l2, netip.AddrPort{})
	p5, to5 := n.accept(l3, netip.AddrPort{})
	out := n.asked()
	r1, w1 := n.pipe()
	r2, w2 := n.pipe()
	r3, w3 := n.pipe()
	r4, w4 := n.pipe()
	plants := []plant{
		{parent: -1}, // somebody else
		{parent: -1, files: []int{l1.fd, in, p1}},  // P1
		{parent: -1, files: []int{l2.fd, p2, to5}}, // P2
		{parent: -1},                             // in the swapper's place
		{parent: 3},                              // P3
		{parent: 4, files: []int{out, r1}},       // P4
		{parent: 4, files: []int{l3.fd, p5, w4}}, // P5
		{parent: 5},                              // P6
		{parent: 5},                              // P7
		{parent: 6, files: []int{w1, r4}},        // P8
		{parent: 7, files: []int{r3}},            // P9
		{parent: 8, files: []int{w3}},            // P10
		{parent: 11, files: []int{r2}},           // P11
		{parent: 11, files: []int{w1, w2}},       // P12
	}
	for i := range plants {
		plants[i].uid = nobody
	}
	return plants, n.err
}

// others is processes of another user with six descriptors each.
func others(count int) ([]plant, error) {
	plants := []plant{{parent: -1, uid: another}}
	for range count {
		plants = append(plants, plant{parent: 0, uid: another, six: true})
	}
	return plants, nil
}

// many is processes of the asked connection's user that hold as many duplicates of one descriptor as they
// may: of /dev/null, or of the given one.
func many(count, fd int) ([]plant, error) {
	var plants []plant
	for range count {
		p := plant{parent: -1, uid: nobody, dups: 1}
		if fd != 0 {
			p.files, p.dups = []int{fd}, fd
		}
		plants = append(plants, p)
	}
	return plants, nil
}

// joined is the complex tree, and processes with duplicates of the pipe that the asked process reads.
func joined(count int) ([]plant, error) {
	plants, err := complexTree()
	if err != nil {
		return nil, err
	}
	const p12 = 13
	more, err := many(count, plants[p12].files[0])
	return append(plants, more...), err
}

// A network makes connections; the first error stays.
type network struct{ err error }

// A listener is a listening socket.
type listener struct {
	fd   int
	addr netip.AddrPort
}

func (n *network) listen(a netip.AddrPort) listener {
	l := listener{-1, a}
	if n.err == nil {
		l.fd, l.addr, n.err = listen(a)
	}
	return l
}

// accept connects to a listener, from an address of the far host or of this one, and returns both ends; the
// far host's is -1.
func (n *network) accept(l listener, from netip.AddrPort) (accepted, connected int) {
	if n.err != nil {
		return -1, -1
	}
	if from.Addr() != far {
		connected, accepted, n.err = connect(l.fd, from, l.addr)
		return accepted, connected
	}
	n.err = withFar(func() (err error) {
		if connected, accepted, err = connect(l.fd, from, l.addr); err != nil {
			return err
		}
		return forget(connected)
	})
	return accepted, -1
}

// forget closes a socket without a word to its other end (TCP_REPAIR, tcp(7)).
func forget(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1); err != nil {
		return fmt.Errorf("forget far end: %w", err)
	}
	return unix.Close(fd)
}

// asked opens the connection that is asked about, and returns this host's end.
func (n *network) asked() (out int) {
	if n.err != nil {
		return -1
	}
	n.err = withFar(func() error {
		l, a, err := listen(asked[1])
		if err != nil {
			return err
		}
		defer unix.Close(l)
		var in int
		if out, in, err = connect(l, asked[0], a); err != nil {
			return err
		}
		return forget(in)
	})
	return out
}

func (n *network) pipe() (r, w int) {
	var fds [2]int
	if n.err == nil {
		n.err = unix.Pipe2(fds[:], 0)
	}
	return fds[0], fds[1]
}

// withFar does something while the far host's address is one of this namespace's.
func withFar(do func() error) error {
	if err := address("lo:2", far); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return linkDown("lo:2")
}

func listen(a netip.AddrPort) (int, netip.AddrPort, error) {
	fd, err := socket(a)
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		return -1, a, fmt.Errorf("listen on %s: %w", a, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1, a, err
	}
	return fd, netip.AddrPortFrom(a.Addr(), uint16(sa.(*unix.SockaddrInet4).Port)), nil
}

// connect makes a connection with a listener of this process and returns both ends.
func connect(l int, from, to netip.AddrPort) (out, in int, err error) {
	fail := func(err error) (int, int, error) {
		return -1, -1, fmt.Errorf("connect %s to %s: %w", from, to, err)
	}
	if out, err = socket(from); err != nil {
		return fail(err)
	}
	if err := unix.Connect(out, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fail(err)
	}
	if in, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return fail(err)
	}
	return out, in, abort(in)
}

func socket(bind netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := abort(fd); err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if !bind.Addr().IsValid() {
		return fd, nil
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet4{Addr: bind.Addr().As4(), Port: int(bind.Port())})
}

// abort lets a socket end without a trace (TIME-WAIT) when it is closed, so that the next arrangement finds
// its ports free.
func abort(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// address gives a link an address.
func address(link string, a netip.Addr) error {
	err := withLink(link, func(fd int, r *unix.Ifreq) error {
		b := a.As4()
		if err := r.SetInet4Addr(b[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
			return err
		}
		r.SetInet4Addr([]byte{255, 255, 255, 255})
		return unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, r)
	})
	if err != nil {
		return fmt.Errorf("add address %s: %w", a, err)
	}
	return nil
}

func linkUp(link string) error {
	return withLink(link, func(fd int, r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
}

// linkDown takes a label's address away.
func linkDown(link string) error {
	return withLink(link, func(fd int, r *unix.Ifreq) error { return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r) })
}

func withLink(link string, do func(fd int, r *unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(link)
	if err != nil {
		return err
	}
	if err := do(fd, r); err != nil {
		return fmt.Errorf("change link %s: %w", link, err)
	}
	return nil
}
