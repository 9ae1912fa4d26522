package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the daemon that a service manager passes sockets to, and each of the daemon's processes.
func TestMain(m *testing.M) {
	if r := role(os.Getenv(roleVariable)); r != "" {
		if err := beTapped(r); err != nil {
			fmt.Fprintln(os.Stderr, "hand over links:", err)
			os.Exit(1)
		}
	}
	runToFail()
	if status, is := RunRole(); is {
		os.Exit(status)
	}
	if os.Getenv("STOPD_TEST_PASSED") != "" {
		ls, err := passed()
		for _, l := range ls {
			fmt.Println(l.Addr())
		}
		fmt.Println("error:", err, os.Getenv("LISTEN_FDS"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestPassedSockets(t *testing.T) {
	var files []*os.File
	var want string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
		want += l.Addr().String() + "\n"
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	unix, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for _, c := range []struct {
		name, pid, n string
		files        []*os.File
		want         string
	}{
		{"two", "$$", "2", files, want + "error: <nil> \n"},
		{"none", "$$", "0", nil, "error: <nil> \n"},
		{"somebody else's", "1", "2", files, "error: <nil> 2\n"},
		{"no number", "$$", "x", files, "error: LISTEN_FDS is \"x\": not a number x\n"},
		{"not TCP", "$$", "1", []*os.File{unix}, "error: use passed socket 3: it listens on unix, not on TCP \n"},
		{"no socket", "$$", "1", nil, "error: use passed socket 3: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", `LISTEN_PID=`+c.pid+` LISTEN_FDS=`+c.n+` exec "$0"`, os.Args[0])
			cmd.Env = append(os.Environ(), "STOPD_TEST_PASSED=1", "GORACE=atexit_sleep_ms=0")
			cmd.ExtraFiles = c.files
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), c.want) {
				t.Errorf("%v: %q, not %q", err, out, c.want)
			}
		})
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify("READY=1"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@stopd-test-" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", path)
		if err := notify("READY=1"); err != nil {
			t.Fatal(err)
		}
		l.SetReadDeadline(time.Now().Add(stateTime))
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != "READY=1" {
			t.Errorf("%s: %q, %v", path, b[:n], err)
		}
		l.Close()
	}
	if err := notify("READY=1"); err == nil {
		t.Error("nobody was told, in silence")
	}
}

// The service manager knows when a reload begins and ends, whatever comes of it.
func TestReloadIsTold(t *testing.T) {
	s := newSite(t)
	d := s.start(t)
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for _, config := range []string{string(Template(s.cfg)), "listn = 1\n"} {
		if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		d.reload()
		for _, want := range []string{"RELOADING=1\nMONOTONIC_USEC=", "READY=1"} {
			b := make([]byte, 100)
			l.SetReadDeadline(time.Now().Add(stateTime))
			if n, err := l.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), want) {
				t.Errorf("%q, %v, want %q", b[:n], err, want)
			}
		}
	}
}

func TestListen(t *testing.T) {
	no6 := func(network, addr string) (net.Listener, error) {
		if network == "tcp" {
			return nil, &net.OpError{Op: "listen", Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}
		}
		return net.Listen(network, strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1))
	}
	l, err := listenBy("[::]:0", no6)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got := l.Addr().(*net.TCPAddr).IP.String(); got != "127.0.0.1" {
		t.Errorf("without IPv6 it listens on %s", got)
	}
	if _, err := listenBy("[2001:db8::1]:0", no6); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("an IPv6 address without IPv6: %v", err)
	}
	if l, err = listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen(l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
	// One that cannot be opened closes those before it.
	free := freePort(t, netip.MustParseAddr("127.0.0.1")).String()
	if _, err := listeners(Config{Listen: []string{free, l.Addr().String()}}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("listeners: %v", err)
	}
	again, err := listen(free)
	if err != nil {
		t.Fatalf("the first is still open: %v", err)
	}
	again.Close()
}
