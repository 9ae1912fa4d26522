package evidence

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd"
)

func TestVolatileRefused(t *testing.T) {
	const tmpfs = "/dev/shm"
	if fs, err := fileSystemOf(tmpfs); err != nil || fs.volatile != "tmpfs" || fs.left <= 0 {
		t.Skipf("%s is no tmpfs here (%q, %v), and mounting one takes root", tmpfs, fs.volatile, err)
	}
	parent, err := os.MkdirTemp(tmpfs, "stopd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	c := configFor(Config{}, newIdentity(t))
	c.AllowVolatile = false
	dir := filepath.Join(parent, "deeper", "store")
	if s, err := Open(dir, c); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		s.Close()
		t.Errorf("Open on tmpfs: %v", err)
	}
	if err := Check(dir, c); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("Check on tmpfs: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("a refused Open made %v, %v", left, err)
	}
	c.AllowVolatile = true
	if err := Check(dir, c); err != nil {
		t.Errorf("Check on tmpfs where it is allowed: %v", err)
	}
	s, err := Open(dir, c)
	if err != nil {
		t.Fatalf("Open on tmpfs where it is allowed: %v", err)
	}
	closeStore(t, s)
}

// The socket's mode keeps others out; were it lost, the peer's uid would.
func TestControlRefusesOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("STOPD_REQUIRE_NETNS") == "1" {
			t.Fatal("connecting as another user takes root")
		}
		t.Skip("connecting as another user takes root")
	}
	s := openTest(t, Config{}, newIdentity(t))
	token := keep(t, s, "report")
	serve(t, s)
	socket := s.dir + ".sock"
	// Only the socket is to refuse.
	for _, dir := range []string{filepath.Dir(socket), filepath.Dir(filepath.Dir(socket))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := connectAs(65534, socket, token); !errors.Is(err, unix.EACCES) {
		t.Errorf("connect to the socket as it is: %v, want %v", err, unix.EACCES)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	answer, err := connectAs(65534, socket, token)
	if err != nil || !strings.HasPrefix(answer, `{"error":"refused"`) {
		t.Errorf("another user's request: %q, %v", answer, err)
	}
	if all := types(entries(t, s.dir)); len(all) != 3 {
		t.Errorf("a refused request left %v", all)
	}
}

// connectAs asks for an export from a thread that runs as uid, and gives the beginning of the answer.
func connectAs(uid int, socket string, token stop.Token) (answer string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so the thread ends with its uid
		keep := ^uintptr(0)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); e != 0 {
			err = e
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return
		}
		// It may be refused before it is read.
		unix.Write(fd, []byte(`{"export":{"token":"`+token.String()+`","by":"mallory","reason":"curious"}}`+"\n"))
		b := make([]byte, 1024)
		var n int
		if n, err = unix.Read(fd, b); err == nil {
			answer = string(b[:n])
		}
	}()
	<-done
	return answer, err
}
