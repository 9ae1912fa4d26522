package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

func stream(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func sockaddr(to netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
}

// said connects a socket, says something, and returns its own end.
func said(t *testing.T, fd int, l net.Listener) netip.AddrPort {
	t.Helper()
	if err := unix.Connect(fd, sockaddr(l.Addr().(*net.TCPAddr).AddrPort())); err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(a.RemoteAddr().String())
}

// TestSocketAgain: a socket that was connected and is connected to somebody else is another connection.
func TestSocketAgain(t *testing.T) {
	alone(t)
	r := remember(t)
	fd := stream(t)
	defer unix.Close(fd)
	var ends [2][2]netip.AddrPort
	for i := range ends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ends[i] = [2]netip.AddrPort{said(t, fd, l), l.Addr().(*net.TCPAddr).AddrPort()}
		var none [16]byte // AF_UNSPEC
		if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), 16); e != 0 {
			t.Fatal(e)
		}
	}
	r.catchUp(t)
	for i, e := range ends {
		got, ok := r.Latest(e[0], e[1], inode(t, "/proc/thread-self/ns/net"), now(t))
		if !ok || !slices.Equal(got.Holders, []recorder.ID{r.self}) || got.Direction != recorder.Outbound || got.Closed == 0 {
			t.Errorf("connection %d of the socket is %+v, %t", i+1, got, ok)
		}
	}
}

// TestTriedAgain: who connects a socket that was refused before has the connection.
func TestTriedAgain(t *testing.T) {
	alone(t)
	r := remember(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	fd := stream(t)
	if err := unix.Connect(fd, sockaddr(to)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
	if l, err = net.Listen("tcp", to.String()); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := said(t, fd, l)
	unix.Close(fd)
	r.catchUp(t)
	got, ok := r.Latest(from, to, inode(t, "/proc/thread-self/ns/net"), now(t))
	if !ok || !slices.Equal(got.Holders, []recorder.ID{r.self}) {
		t.Errorf("the connection is %+v, %t", got, ok)
	}
	kinds, _ := r.kindsOf(to.Port())
	if n := len(kinds) - len(slices.DeleteFunc(kinds, func(k recorder.Kind) bool { return k == recorder.Connecting })); n != 2 {
		t.Errorf("that it connects is told %d times, not twice", n)
	}
}

// TestRefusedAndRead: what was never established takes no place, whoever uses the socket then.
func TestRefusedAndRead(t *testing.T) {
	alone(t)
	r := remember(t)
	const n = 100
	var files []*os.File
	ours := map[uint64]bool{}
	for range n {
		fd := stream(t)
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}); !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); n != int(unix.ECONNREFUSED) {
			t.Fatal(n, err)
		}
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			t.Fatal(err)
		}
		ours[cookie] = true
		files = append(files, f)
	}
	for _, f := range files {
		cmd := exec.Command("/bin/cat")
		cmd.Stdin = f
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f.Close()
	}
	r.catchUp(t)
	// Others on this machine have connections meanwhile.
	h, err := recorder.New(recorder.Smallest, 0)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, ev := range r.all {
		if ours[ev.Connection.Cookie] {
			h.Apply(ev)
			told++
		}
	}
	if taken := h.Fill().Connections; told == 0 || taken >= n/2 {
		t.Errorf("%d sockets that were refused and closed take %d places, by %d events", n, taken, told)
	}
}

// TestDestroyed: who destroys others' connections (ss -K) had none of them.
func TestDestroyed(t *testing.T) {
	alone(t)
	r := remember(t)
	l := loopback(t)
	to := l.Addr().(*net.TCPAddr).AddrPort()
	c, _ := connection(t, l)
	from := c.LocalAddr().(*net.TCPAddr).AddrPort()
	cmd := exec.Command("ss", "-K", "-t", "sport", "=", from.String()[len("127.0.0.1"):])
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("ss: %v: %s", err, out)
	}
	r.catchUp(t)
	got, ok := r.Latest(from, to, inode(t, "/proc/thread-self/ns/net"), now(t))
	if !ok || got.Closed == 0 {
		t.Skipf("it was not destroyed: %+v, %s", got, out)
	}
	if !slices.Equal(got.Holders, []recorder.ID{r.self}) {
		t.Errorf("held by %+v, not by %v alone; ss is %d", got.Holders, r.self, cmd.Process.Pid)
	}
}

// TestCopied: who copies a socket to look at it, and closes it last, had no connection.
func TestCopied(t *testing.T) {
	alone(t)
	r := remember(t)
	if err := r.collection.Variables[recorderVarOwn].Set(uint32(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	l := loopback(t)
	to := l.Addr().(*net.TCPAddr).AddrPort()
	cmd := exec.Command("/bin/bash", "-c", fmt.Sprintf("exec 7<>/dev/tcp/127.0.0.1/%d; echo; read; exec 7>&-; echo; read", to.Port()))
	in, out := start(t, cmd)
	said := bufio.NewReader(out)
	said.ReadString('\n')
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 7, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	said.ReadString('\n') // it has closed it
	unix.Close(fd)
	in.Close()
	cmd.Wait()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := io.ReadAll(a); err != nil {
		t.Fatal(err)
	}
	a.Close()
	r.catchUp(t)
	got, _ := r.Latest(netip.MustParseAddrPort(a.RemoteAddr().String()), to, inode(t, "/proc/thread-self/ns/net"), now(t))
	if len(got.Holders) != 1 || got.Holders[0].PID != uint32(cmd.Process.Pid) {
		t.Errorf("held by %+v, not by %d alone", got.Holders, cmd.Process.Pid)
	}
}
