package bpf

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// kindsOf are the kinds of events that were read of connections with an end, and the processes that they name.
func (r *remembering) kindsOf(port uint16) (kinds []recorder.Kind, named []uint32) {
	of := map[uint64]bool{}
	for _, ev := range r.all {
		if c := ev.Connection; ev.Kind == recorder.Established && (c.Local.Port() == port || c.Remote.Port() == port) {
			of[c.Cookie] = true
		}
	}
	for _, ev := range r.all {
		if of[ev.Connection.Cookie] {
			kinds, named = append(kinds, ev.Kind), append(named, ev.Process.PID)
		}
	}
	return kinds, named
}

// TestToldOnce: that a process has a connection is told once for each end, though it connects, sends, receives and closes.
func TestToldOnce(t *testing.T) {
	alone(t)
	r := remember(t)
	if err := r.Untold; err != nil {
		t.Skip(err)
	}
	l := loopback(t)
	converse(t, l, l.Addr().String())
	r.catchUp(t)
	kinds, named := r.kindsOf(uint16(l.Addr().(*net.TCPAddr).Port))
	slices.Sort(kinds)
	want := []recorder.Kind{recorder.Connecting, recorder.Established, recorder.Established, recorder.Touched, recorder.Closed, recorder.Closed}
	if !slices.Equal(kinds, want) {
		t.Errorf("told are %v of %v, not %v", kinds, named, want)
	}
}

// TestTakenOver: of a connection that a child uses its parent has opened, both are told, and the parent once more when it ends it.
func TestTakenOver(t *testing.T) {
	alone(t)
	r := remember(t)
	if err := r.Untold; err != nil {
		t.Skip(err)
	}
	l := loopback(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "echo hello >&3")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	r.catchUp(t)
	child := uint32(cmd.Process.Pid)
	if got, _ := r.Latest(local, remote, inode(t, "/proc/thread-self/ns/net"), now(t)); len(got.Holders) != 2 || got.Holders[0] != r.self || got.Holders[1].PID != child || got.More {
		t.Errorf("held by %+v, not by %v and %d", got.Holders, r.self, child)
	}
	_, named := r.kindsOf(remote.Port())
	if i := slices.Index(named, child); i < 0 || !slices.Contains(named[i:], r.self.PID) {
		t.Errorf("named are %v, not %d and then %d again", named, child, r.self.PID)
	}
}

// TestAcceptedByAnother: the user of a connection that was accepted is who accepted it, and not who listened.
func TestAcceptedByAnother(t *testing.T) {
	alone(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become another")
	}
	const other = 65534
	r := remember(t)
	l := loopback(t)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd()) // which waits
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with it
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, other, other, other); e != 0 {
			done <- e
			return
		}
		a, _, err := unix.Accept(fd)
		if err == nil {
			err = unix.Close(a)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	c.Close()
	netns := inode(t, "/proc/thread-self/ns/net")
	var got recorder.Connection
	for ; got.Closed == 0; time.Sleep(time.Millisecond) {
		r.catchUp(t)
		got, _ = r.Latest(remote, local, netns, now(t))
	}
	if got.UID != other {
		t.Errorf("the accepted end is %d's, not %d's", got.UID, other)
	}
	if got, _ = r.Latest(local, remote, netns, now(t)); int(got.UID) != os.Geteuid() {
		t.Errorf("the other end is %d's", got.UID)
	}
}
