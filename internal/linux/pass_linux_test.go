package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/linux/bpf"
)

// accelerated returns a host that reads descriptors by BPF. Where the kernel does not let it, the test is
// left out, unless the environment says that it must run.
func accelerated(t testing.TB) *Host {
	t.Helper()
	h := openHost(t)
	if err := h.Accelerate(); err != nil {
		if os.Getenv("STOPD_REQUIRE_NETNS") == "1" && os.Geteuid() == 0 {
			t.Fatalf("descriptors by BPF: %v", err)
		}
		t.Skipf("descriptors by BPF: %v", err)
	}
	return h
}

// passOf reads all descriptors by BPF, to the end.
func passOf(t testing.TB, s *snapshot) *index {
	t.Helper()
	ix, err := passIndex(context.Background(), s.h.files.Load(), s.root, s.pipeDev)
	if err != nil {
		t.Fatal(err)
	}
	ix.settle(context.Background(), s.root, object{class: fileObject})
	return ix
}

// A line is one descriptor of an index.
type line struct {
	PID, TID, FD int32
	Object       string
	Mode         host.Mode
}

func linesOf(s *snapshot, ix *index, pids ...int) (ls []line) {
	for o, i := range ix.first {
		for ; i != 0; i = ix.refs[i-1].next {
			r := ix.refs[i-1]
			if !slices.Contains(pids, int(r.pid)) {
				continue
			}
			d, err := openProc(s.root, int(r.pid))
			if err != nil {
				continue
			}
			ls = append(ls, line{r.pid, r.tid, r.fd, string(o.name()), r.mode(d)})
			d.close()
		}
	}
	slices.SortFunc(ls, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(a.TID, b.TID), cmp.Compare(a.FD, b.FD))
	})
	return ls
}

// TestPassIsScan compares what the kernel's iterator and /proc tell of every kind of descriptor.
func TestPassIsScan(t *testing.T) {
	h := accelerated(t)
	l := listen(t, unix.AF_INET6, loopback6, 0, 1)
	r, w := pipe(t)
	x, y := socketpair(t, unix.SOCK_DGRAM)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	master, slave := terminal(t)
	held := start(t, "hold", []*os.File{l, r, w, x, y, openFile(t, fifo, unix.O_RDWR), openFile(t, file, unix.O_WRONLY), openFile(t, file, unix.O_RDONLY),
		openFile(t, "/etc/passwd", unix.O_RDONLY), openFile(t, file, unix.O_PATH), os.NewFile(uintptr(memory), "memory"), master, slave,
		openFile(t, "/dev/null", unix.O_RDWR), openFile(t, "/proc/self/status", unix.O_RDONLY), openFile(t, dir, unix.O_RDONLY)}, nil)
	to := listen(t, unix.AF_INET, loopback4, 0, 1)
	pids := []int{os.Getpid(), held.pid,
		start(t, "threads", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_TO="+localOf(t, to).String()) }).pid,
		start(t, "many", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(3*turn)) }).pid}
	if os.Geteuid() == 0 {
		pids = append(pids, start(t, "overlay", nil, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "STOPD_TEST_DIR="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		}).pid)
	}
	var a, b *index
	var want, got []line
	// What other tests left open in this process may be closed in between: then both look again.
	for range 10 {
		s := openSnapshot(t, h)
		a, b = scan(t.Context(), s.root, s.pipeDev), passOf(t, s)
		if want, got = linesOf(s, a, pids...), linesOf(s, b, pids...); gocmp.Equal(want, got) {
			break
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("descriptors by BPF (-/proc +BPF):\n%s", d)
	}
	for _, pid := range pids {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(l line) bool { return int(l.PID) != pid })); n < 3 {
			t.Errorf("%d descriptors of process %d", n, pid)
		}
		if d := gocmp.Diff(a.threads[pid], b.threads[pid]); d != "" {
			t.Errorf("threads of %d (-/proc +BPF):\n%s", pid, d)
		}
	}
	// Not this process's own: what other tests leave behind here may just be closed.
	gaps := slices.DeleteFunc(slices.Clone(b.gaps), func(g host.Gap) bool { return !slices.Contains(pids[1:], g.PID) })
	if n := len(b.pass.rest); n != 0 || len(gaps) != 0 {
		t.Errorf("%d tables are not read whole, gaps %v", n, gaps)
	}
}

// Wherever the kernel's buffer ends, a table that is cut says so.
func TestPassSaysWhereItCuts(t *testing.T) {
	h := accelerated(t)
	pid := start(t, "many", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(turn)) }).pid
	for most := 1; most < turn; most++ {
		n, cut := 0, false
		err := h.files.Load().Read(t.Context(), bpf.Tables{PID: pid, Most: most}, func(r *bpf.Record) bool {
			n++
			cut = r.Mode == bpf.Cut
			return true
		})
		if err != nil || !cut || n > most+1 {
			t.Errorf("of %d descriptors: %d records, the last says that more are left: %t, %v", most, n, cut, err)
		}
	}
}

// overlayRole holds files of an overlay, of which stat(2) shows other numbers than the kernel keeps.
func overlayRole() (string, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	dir := os.Getenv("STOPD_TEST_DIR")
	if err := unix.Mount("test", dir, "tmpfs", 0, ""); err != nil {
		return "", err
	}
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return "", err
		}
	}
	merged := filepath.Join(dir, "merged")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "lower/file"), nil, 0o600), unix.Mkfifo(filepath.Join(dir, "lower/fifo"), 0o600)); err != nil {
		return "", err
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("test", merged, "overlay", 0, options); err != nil {
		return "", fmt.Errorf("mount overlay: %w", err)
	}
	for _, f := range []string{"file", "file", "fifo"} {
		if _, err := unix.Open(filepath.Join(merged, f), unix.O_RDWR, 0); err != nil {
			return "", err
		}
	}
	return "", nil
}

// TestLeaderless has a process whose first thread has ended: the kernel tells its descriptors, once.
func TestPassLeaderless(t *testing.T) {
	h := accelerated(t)
	c := start(t, "leaderless", nil, nil)
	r := reportOf(t, c)
	refs := refsOf(passOf(t, openSnapshot(t, h)), object{socketObject, 0, r.Socket})
	if len(refs) != 1 || int(refs[0].pid) != c.pid || int(refs[0].fd) != r.FD || refs[0].tid == 0 {
		t.Errorf("holders %+v, want process %d, descriptor %d", refs, c.pid, r.FD)
	}
}

// TestPassIsFair ends the time after some reads: processes that were not read whole are gaps, and nobody is
// missed in silence.
func TestPassIsFair(t *testing.T) {
	h := accelerated(t)
	hog := start(t, "many", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(10*turn)) })
	r, w := pipe(t)
	quiet := start(t, "hold", []*os.File{r, w}, nil)
	s := openSnapshot(t, h)
	ix, err := passIndex(t.Context(), h.files.Load(), s.root, s.pipeDev)
	if err != nil {
		t.Fatal(err)
	}
	left := slices.ContainsFunc(ix.pass.rest, func(p position) bool { return int(p.pid) == hog.pid && p.offset >= turn/2 })
	if !left || slices.ContainsFunc(ix.pass.rest, func(p position) bool { return int(p.pid) == quiet.pid }) {
		t.Fatalf("after the pass are left %+v, want process %d, and perhaps strangers", ix.pass.rest, hog.pid)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd(r), &st); err != nil {
		t.Fatal(err)
	}
	o := object{pipeObject, 0, st.Ino}
	if refs := refsOf(ix, o); !slices.ContainsFunc(refs, func(r ref) bool { return int(r.pid) == quiet.pid }) {
		t.Errorf("holders of the quiet pipe: %+v", refs)
	}
	over := &countdown{Context: t.Context()}
	ix.settle(over, s.root, object{class: fileObject})
	if !slices.Contains(ix.gaps, host.Gap{PID: hog.pid, What: "descriptors", Why: "bound: deadline"}) {
		t.Errorf("gaps %v do not have process %d", ix.gaps, hog.pid)
	}
}

// TestPassStopsEarly asks for the holders of a socket whose one reference is that of its descriptor: nobody
// else can hold it, and what is left of others' tables is not read.
func TestPassStopsEarly(t *testing.T) {
	h := accelerated(t)
	start(t, "many", nil, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "STOPD_TEST_COUNT="+strconv.Itoa(3*turn)) })
	x, y := socketpair(t, unix.SOCK_STREAM)
	c := start(t, "hold", []*os.File{x}, nil)
	o := socketObjectOf(t, x)
	x.Close()
	s := openSnapshot(t, h)
	if hs, err := s.Holders(t.Context(), o.name()); err != nil || len(hs) != 1 || hs[0].PID != c.pid {
		t.Errorf("holders %+v, %v; want process %d", hs, err, c.pid)
	}
	if len(s.ix.pass.rest) == 0 {
		t.Error("all tables were read whole")
	}
	if _, err := s.Holders(t.Context(), (object{socketObject, 0, 1}).name()); err != nil || len(s.ix.pass.rest) != 0 {
		t.Errorf("%d tables are not read for a socket that nobody has; %v", len(s.ix.pass.rest), err)
	}
	runtime.KeepAlive(y)
}

func socketObjectOf(t testing.TB, f *os.File) object {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd(f), &st); err != nil {
		t.Fatal(err)
	}
	return object{socketObject, 0, st.Ino}
}

// TestHiddenHolder sends a socket to where nobody receives it. Calls that wait for a socket have references
// to it as well, and hide nobody.
func TestHiddenHolder(t *testing.T) {
	h := accelerated(t)
	gaps := func(o object) (found []host.Gap) {
		s := openSnapshot(t, h)
		if _, err := s.Holders(t.Context(), o.name()); err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(s.Gaps(), func(g host.Gap) bool { return g.What != "holders of "+string(o.name()) })
	}
	x, _ := socketpair(t, unix.SOCK_STREAM)
	r, w := pipe(t)
	c := start(t, "waiting", []*os.File{x, r}, nil)
	x.Close()
	waiting := reportOf(t, c)
	polled, piped := object{socketObject, 0, waiting.Sockets[0]}, object{pipeObject, 0, waiting.Sockets[1]}
	r.Close()
	waitFor(t, "three threads wait", func() bool { return threadsIn(t, c.pid, "poll", "pselect", "pipe", "unix_stream") >= 4 })
	for _, o := range []object{polled, piped} {
		if g := gaps(o); len(g) != 0 {
			t.Errorf("gaps while somebody waits: %v", g)
		}
	}
	a, b := socketpair(t, unix.SOCK_STREAM)
	sent, end := socketpair(t, unix.SOCK_STREAM)
	o := socketObjectOf(t, sent)
	if err := unix.Sendmsg(fd(a), []byte{0}, unix.UnixRights(fd(sent)), nil, 0); err != nil {
		t.Fatal(err)
	}
	held := start(t, "hold", []*os.File{sent}, nil)
	if g := gaps(o); len(g) != 1 || !strings.Contains(g[0].Why, "counts 1 references") {
		t.Errorf("gaps while the socket is in flight: %v", g)
	}
	held.end()
	b.Close()
	a.Close()
	sent.Close()
	runtime.KeepAlive([]*os.File{w, end})
}

// threadsIn counts a process's threads that wait in a function of the kernel with one of these words in its
// name.
func threadsIn(t *testing.T, pid int, words ...string) (n int) {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		b, _ := os.ReadFile(p)
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(string(b), w) }) {
			n++
		}
	}
	return n
}

// uninterrupted calls f until no signal interrupts it: Go's runtime sends them to threads.
func uninterrupted(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// waitingRole has threads that wait for a socket and for a pipe: two in poll(2), two in read(2).
func waitingRole() (string, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(3, &a), unix.Fstat(4, &b)); err != nil {
		return "", err
	}
	for _, fd := range []int32{3, 4} {
		go uninterrupted(func() error {
			_, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, -1)
			return err
		})
		go uninterrupted(func() error {
			_, err := unix.Read(int(fd), make([]byte, 1))
			return err
		})
	}
	return report{Sockets: []uint64{a.Ino, b.Ino}}.line()
}

// TestBPFPrivilege reads the descriptors of root's processes as a user with CAP_BPF and CAP_PERFMON alone, and
// goes on by /proc without them.
func TestBPFPrivilege(t *testing.T) {
	if os.Getenv(againEnv) == "" {
		needRoot(t)
		accelerated(t)
		x, y := socketpair(t, unix.SOCK_STREAM)
		other := start(t, "hold", []*os.File{x}, nil)
		for _, caps := range [][]uintptr{{unix.CAP_BPF, unix.CAP_PERFMON}, {unix.CAP_BPF}, {unix.CAP_PERFMON}, {}} {
			again(t, "TestBPFPrivilege", func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, fmt.Sprintf("STOPD_TEST_OTHER=%d %d %d", len(caps), other.pid, socketObjectOf(t, x).n))
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
			})
		}
		runtime.KeepAlive(y)
		return
	}
	var n, pid int
	var o = object{class: socketObject}
	if _, err := fmt.Sscan(os.Getenv("STOPD_TEST_OTHER"), &n, &pid, &o.n); err != nil {
		t.Fatal(err)
	}
	h := openHost(t)
	err := h.Accelerate()
	if n == 2 && err != nil || n != 2 && !errors.Is(err, unix.EPERM) {
		t.Fatalf("with %d capabilities: %v", n, err)
	}
	hs, err := openSnapshot(t, h).Holders(t.Context(), o.name())
	found := slices.ContainsFunc(hs, func(h host.Holder) bool { return h.PID == pid && h.Start != 0 })
	if err != nil || found != (n == 2) {
		t.Errorf("holders with %d capabilities: %+v, %v", n, hs, err)
	}
}

// terminal opens a pseudo terminal.
func terminal(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master = openFile(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(fd(master), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	var n uint32
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTN, uintptr(unsafe.Pointer(&n))); e != 0 {
		t.Fatal(e)
	}
	return master, openFile(t, fmt.Sprint("/dev/pts/", n), unix.O_RDWR|unix.O_NOCTTY)
}
