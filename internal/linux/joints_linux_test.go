package linux

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// pids returns who holds an object.
func pids(t *testing.T, s *snapshot, o host.Object) []int {
	t.Helper()
	hs, err := s.Holders(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, h := range hs {
		if h.Start == 0 || h.FDs == nil {
			t.Errorf("holder %+v of %q has no start, or no list of descriptors", h, o)
		}
		out = append(out, h.PID)
	}
	return out
}

// shared checks that a descriptor of a kind joins exactly these processes, from whichever it is looked at, and
// that it is its own peer.
func shared(t *testing.T, kind host.Kind, cs ...int) {
	t.Helper()
	want := slices.Sorted(slices.Values(cs))
	for _, pid := range cs {
		s := openSnapshot(t, openHost(t))
		d := only(t, readProcess(t, s, pid), func(d host.Descriptor) bool { return d.Kind == kind })
		if d.Object == "" || d.Peer != d.Object {
			t.Errorf("process %d has %+v; want an object that is its own peer", pid, d)
		}
		if got := pids(t, s, d.Object); !slices.Equal(got, want) {
			t.Errorf("%s %q is held by %v, want %v", kind, d.Object, got, want)
		}
		// The same, when nothing was looked at before.
		if got := pids(t, openSnapshot(t, openHost(t)), d.Object); kind != host.Sem && kind != host.Msg && !slices.Equal(got, want) {
			t.Errorf("%s %q of a fresh look is held by %v, want %v", kind, d.Object, got, want)
		}
	}
}

func eventfd(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "eventfd")
}

// TestEventfd has two processes that share an eventfd, and one with another that has the same inode.
func TestEventfd(t *testing.T) {
	needRoot(t)
	x, y := eventfd(t), eventfd(t)
	hold := func(f *os.File) int { return start(t, "hold", []*os.File{f}, nil).pid }
	a, b, other := hold(x), hold(x), hold(y)
	x.Close()
	y.Close()
	// A child of Go's has none of its own.
	shared(t, host.EventFD, a, b)
	shared(t, host.EventFD, other)
}

// semaphores makes a set of System V semaphores that ends with the test.
func semaphores(t *testing.T, n int) int {
	t.Helper()
	id, _, e := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, uintptr(n), unix.IPC_CREAT|0o600)
	if e != 0 {
		t.Fatal(os.NewSyscallError("semget", e))
	}
	t.Cleanup(func() {
		if _, _, e := unix.Syscall6(unix.SYS_SEMCTL, id, 0, unix.IPC_RMID, 0, 0, 0); e != 0 {
			t.Error(os.NewSyscallError("semctl", e))
		}
	})
	return int(id)
}

func TestSemaphores(t *testing.T) {
	needRoot(t)
	id, other := semaphores(t, 3), semaphores(t, 1)
	post := func(id, n int) int { return shares(t, fmt.Sprintf("post %d %d", id, n), host.ReadWrite).pid }
	a, b := post(id, 0), post(id, 2)
	c := post(other, 0)
	shared(t, host.Sem, a, b)
	shared(t, host.Sem, c)
}

// TestQueuesOfNamespaces has queues with one number in two IPC namespaces, neither the daemon's.
func TestQueuesOfNamespaces(t *testing.T) {
	needRoot(t)
	pair := func() []int {
		c := start(t, "ipc", nil, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWIPC} })
		r := reportOf(t, c)
		return []int{c.pid, r.PID}
	}
	a, b := pair(), pair()
	shared(t, host.Msg, a...)
	shared(t, host.Msg, b...)
	shared(t, host.Sem, a...)
	before, err := ownIPC()
	if err != nil {
		t.Fatal(err)
	}
	// Neither this thread nor any other is left in a namespace of theirs.
	tasks, err := filepath.Glob("/proc/self/task/*/ns/ipc")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	waitFor(t, "no thread is in another namespace", func() bool {
		return !slices.ContainsFunc(tasks, func(p string) bool {
			var st unix.Stat_t
			return unix.Stat(p, &st) == nil && st.Ino != before
		})
	})
}

// TestFixedFiles has a connection that is in no descriptor, only in the table of an io_uring instance.
func TestFixedFiles(t *testing.T) {
	needRoot(t)
	l := listen(t, unix.AF_INET, loopback4, 0, 1)
	client, srv := dial(t, l, unix.AF_INET, loopback4, 0)
	r, w := pipe(t)
	var st unix.Stat_t
	if err := unix.Fstat(fd(r), &st); err != nil {
		t.Fatal(err)
	}
	end := object{pipeObject, 0, st.Ino}.name()
	c := start(t, "ring", []*os.File{client, w}, nil)
	innocent := start(t, "ring", nil, nil)
	local, remote := localOf(t, client), remoteOf(t, client)
	client.Close()
	w.Close()
	h := openHost(t)
	sock, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: local, Remote: remote})
	if err != nil {
		t.Fatal(err)
	}
	s := openSnapshot(t, h)
	rep := reportOf(t, c)
	want := slices.Sorted(slices.Values([]int{c.pid, rep.PID}))
	if got := pids(t, s, sock.Object); !slices.Equal(got, want) {
		t.Errorf("a socket in a table is held by %v, want %v", got, want)
	}
	for _, pid := range want {
		p := readProcess(t, s, pid)
		d := only(t, p, func(d host.Descriptor) bool { return d.Object == sock.Object })
		if d.Kind != host.TCP || d.Local != local || d.Remote != remote || d.Direction != host.Outbound || d.Peer != objectOfFile(t, srv) || d.FDs == nil || len(d.FDs) != 0 {
			t.Errorf("the socket is %+v", d)
		}
		pipe := only(t, p, func(d host.Descriptor) bool { return d.Object == end })
		if pipe.Kind != host.Pipe || pipe.Mode != "" {
			t.Errorf("the pipe is %+v; want one in an unknown mode", pipe)
		}
		if g := gapsOf(s, pid); len(g) > 0 {
			t.Errorf("gaps %q", g)
		}
	}
	if got := pids(t, s, end); !slices.Equal(got, slices.Sorted(slices.Values(append(want, os.Getpid())))) {
		t.Errorf("a pipe in a table is held by %v, want %v and this process", got, want)
	}
	shared(t, host.IOUring, want...)
	shared(t, host.IOUring, innocent.pid, reportOf(t, innocent).PID)
}

// TestTraced has a process that a thread of another traces, which is not the first of its process.
func TestTraced(t *testing.T) {
	needRoot(t)
	tracee := start(t, "hold", nil, nil)
	tracer := start(t, "tracer", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(tracee.pid)) })
	s := openSnapshot(t, openHost(t))
	d := only(t, readProcess(t, s, tracee.pid), func(d host.Descriptor) bool { return d.Kind == host.PTrace })
	if d.Mode != host.Read || d.Name != "by process "+strconv.Itoa(tracer.pid) {
		t.Errorf("a traced process has %+v", d)
	}
	hs, err := s.Holders(t.Context(), d.Object)
	if err != nil || len(hs) != 2 || hs[0].PID != tracee.pid || hs[0].Mode != host.Read || hs[1].PID != tracer.pid || hs[1].Mode != host.Write {
		t.Errorf("holders %+v, %v; want process %d that reads and %d that writes", hs, err, tracee.pid, tracer.pid)
	}
	by := only(t, readProcess(t, s, tracer.pid), func(d host.Descriptor) bool { return d.Kind == host.PTrace })
	if by.Mode != host.Write || by.Object != d.Object {
		t.Errorf("the tracer has %+v", by)
	}
	if got := pids(t, openSnapshot(t, openHost(t)), object{traceObject, 0, uint64(tracer.pid)}.name()); len(got) != 0 {
		t.Errorf("a process that nobody traces: %v", got)
	}
}

// TestServedFiles has a process with a file of a file system that another one serves, and one with one that a
// third serves.
func TestServedFiles(t *testing.T) {
	needRoot(t)
	pair := func() []int {
		path := page(t, filepath.Join(t.TempDir(), "file"))
		c := start(t, "server", nil, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "STOPD_TEST_DIR="+path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		})
		return []int{c.pid, reportOf(t, c).PID}
	}
	a, b := pair(), pair()
	s := openSnapshot(t, openHost(t))
	if d := only(t, readProcess(t, s, a[0]), func(d host.Descriptor) bool { return strings.HasPrefix(d.Name, "/dev/fuse") || d.Path == "/dev/fuse" }); d.Kind != host.FUSE {
		t.Skipf("the kernel does not tell what a device of FUSE serves: %+v", d)
	}
	shared(t, host.FUSE, a...)
	shared(t, host.FUSE, b...)
}

// TestNames has descriptors that join nobody, and tell something.
func TestNames(t *testing.T) {
	needRoot(t)
	c := start(t, "named", nil, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET} })
	s := openSnapshot(t, openHost(t))
	p := readProcess(t, s, c.pid)
	for kind, name := range map[host.Kind]string{
		"tun": "/dev/net/tun stopd-test", "pidfd": "anon_inode:[pidfd] " + strconv.Itoa(c.pid), "signalfd": "anon_inode:[signalfd]",
		"timerfd": "anon_inode:[timerfd]", "inotify": "anon_inode:inotify",
	} {
		if d := only(t, p, func(d host.Descriptor) bool { return d.Kind == kind }); d.Name != name || d.Object != "" {
			t.Errorf("%+v; want the name %q and no object", d, name)
		}
	}
	for _, name := range []string{"netlink protocol 2 port 4711", "vsock 4294967295:4294967295"} {
		if !slices.ContainsFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Kind == "socket" && d.Name == name }) {
			t.Errorf("no socket is called %q: %+v", name, p.Descriptors)
		}
	}
	// Who sends to a netlink socket of user space is not told; what is not connected to anybody lacks nothing.
	if g := gapsOf(s, c.pid); len(g) != 1 || !strings.HasSuffix(g[0], "the kernel does not tell who has it: netlink protocol 2 port 4711") {
		t.Errorf("gaps %q; want one of the netlink socket", g)
	}
}

// post changes a semaphore.
func post(id, n int) error {
	op := struct{ num, op, flag int16 }{num: int16(n), op: 1}
	_, _, e := unix.Syscall(unix.SYS_SEMOP, uintptr(id), uintptr(unsafe.Pointer(&op)), 1)
	return noErrno(e)
}
