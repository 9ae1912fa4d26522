package bpf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// roleEnv makes the test program another one.
const roleEnv = "STOPD_TEST_ROLE"

func TestMain(m *testing.M) {
	// What this process was given by accident it does not give on: a pipe of all would join all.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	run := map[string]func() error{"inside": insideRole, "storm": stormRole, "load": loadRole, "pump": pumpRole}[os.Getenv(roleEnv)]
	if run == nil {
		os.Exit(m.Run())
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// role is the test program as another one, with more in its environment.
func role(name string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), roleEnv+"="+name), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts a program with pipes to it and from it.
func start(t testing.TB, cmd *exec.Cmd) (in io.WriteCloser, out io.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

// remembering is events with a history of them.
type remembering struct {
	*Events
	*recorder.History
	all  []recorder.Event // but for their slices
	self recorder.ID
}

// remember begins to remember, with what there is.
func remember(t testing.TB) *remembering {
	t.Helper()
	e, err := OpenEvents(0)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	h, err := recorder.New(32<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &remembering{Events: e, History: h}
	h.Sweep(now(t))
	if err := e.Met(new(sync.Mutex), func(ev *recorder.Event) {
		if ev.Kind == recorder.ProcessMet && ev.Process.PID == uint32(os.Getpid()) {
			r.self = ev.Process.ID
		}
		h.Apply(*ev)
	}); err != nil {
		t.Fatal(err)
	}
	h.Swept(now(t))
	return r
}

func now(t testing.TB) uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return uint64(ts.Nano())
}

// catchUp reads what was written so far.
func (r *remembering) catchUp(t testing.TB) {
	t.Helper()
	if err := r.Read(func(evs []recorder.Event) {
		r.Apply(evs...)
		r.all = append(r.all, evs...)
	}); err != nil {
		t.Fatal(err)
	}
}

// alone puts the test into a network namespace of its own, and never lets its thread be used again.
func alone(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("make network namespace: %v", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
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

// converse connects to a listener, says something each way and closes both ends; it returns the end that connected.
func converse(t testing.TB, l net.Listener, to string) (local, remote netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(a); string(b) != "question" {
		t.Fatalf("heard %q, %v", b, err)
	}
	ends := func(a net.Addr) netip.AddrPort {
		ap := a.(*net.TCPAddr).AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return ends(c.LocalAddr()), ends(c.RemoteAddr())
}

func inode(t testing.TB, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}
