package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/internal/posix"
)

// again runs a test of this program in a process of its own, with what change sets, and fails with it.
func again(t *testing.T, name string, change func(*exec.Cmd)) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+name+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), againEnv+"="+name, "TMPDIR=/tmp")
	cmd.Dir = "/"
	change(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out)
	}
}

const againEnv = "STOPD_TEST_AGAIN"

// TestUnprivileged looks at the machine as a user: own processes are found and described, others' are gaps,
// and not one each.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() == 0 && os.Getenv(againEnv) == "" {
		var other *child
		for range posix.FewGaps + 1 {
			other = start(t, "hold", nil, nil)
		}
		again(t, "TestUnprivileged", func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "STOPD_TEST_OTHER="+strconv.Itoa(other.pid))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		})
		return
	}
	h := openHost(t)
	l := listen(t, unix.AF_INET, loopback4, 0, 1)
	c, srv := dial(t, l, unix.AF_INET, loopback4, 0)
	child := start(t, "hold", []*os.File{srv}, nil)
	srv.Close()
	sock, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: localOf(t, c), Remote: remoteOf(t, c)})
	if err != nil || sock.UID != uint32(os.Getuid()) || sock.Direction != host.Outbound {
		t.Fatalf("Find: %+v, %v", sock, err)
	}
	s := openSnapshot(t, h)
	hs, err := s.Holders(t.Context(), sock.Object)
	if err != nil || len(hs) != 1 || hs[0].PID != os.Getpid() {
		t.Errorf("holders of the own socket: %+v, %v", hs, err)
	}
	for pid, n := range map[int]int{os.Getpid(): fd(c), child.pid: 3} {
		i := slices.IndexFunc(readProcess(t, s, pid).Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, n) })
		if d := s.processes[pid].p.Descriptors[i]; d.Kind != host.TCP || d.Peer == "" || d.Direction == host.UnknownDirection || d.NetNS != h.netns {
			t.Errorf("own socket: %+v", d)
		}
		if g := gapsOf(s, pid); len(g) != 0 {
			t.Errorf("gaps of an own process: %q", g)
		}
	}
	other, err := strconv.Atoi(os.Getenv("STOPD_TEST_OTHER"))
	if err != nil {
		other = 1 // run as a user from the start
	}
	p := readProcess(t, s, other)
	if p.Name == "" || p.RUID == nil || *p.RUID != 0 || len(p.Descriptors) != 0 {
		t.Errorf("a process of root, as a user: %+v", p)
	}
	g := gapsOf(s, other)
	for _, what := range []string{"descriptors: permission denied", "program: ", "environment: ", "working directory: "} {
		if n := len(slices.DeleteFunc(slices.Clone(g), func(g string) bool { return !strings.HasPrefix(g, what) })); n != 1 {
			t.Errorf("a process of root has %d gaps %q, want 1, in %q", n, what, g)
		}
	}
	if all := gapsOf(s, 0); !slices.ContainsFunc(all, func(g string) bool { return strings.HasPrefix(g, "descriptors of ") }) {
		t.Errorf("gaps of no process %q do not count the others", all)
	}
	if n := len(s.Gaps()); n > 30 {
		t.Errorf("%d gaps: %v", n, s.Gaps())
	}
	// What can be seen is tried on others' processes, not on the parent, which is the user's own.
	child = start(t, "hold", nil, nil)
	if err := copyOf(child.pid); err != nil {
		t.Errorf("copy of an own process: %v", err)
	}
	if err := tryCopy(); !errors.Is(err, unix.EPERM) {
		t.Errorf("copies of others' descriptors: %v", err)
	}
}

// TestListed forbids itself to take copies of sockets, as a container's rules may. They are then looked for
// in lists, which know as much.
func TestListed(t *testing.T) {
	if os.Getenv(againEnv) == "" {
		again(t, "TestListed", func(*exec.Cmd) {})
		return
	}
	h := openHost(t)
	l := listen(t, unix.AF_INET6, netip.IPv6Unspecified(), 0, 1)
	c, srv := dial(t, l, unix.AF_INET, loopback4, 0)
	x, y := socketpair(t, unix.SOCK_STREAM)
	u := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	bind(t, u, sockaddr(unix.AF_INET, netip.AddrPortFrom(loopback4, 0)))
	v := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	connect(t, v, sockaddr(unix.AF_INET, localOf(t, u)))
	files := []*os.File{l, c, srv, x, y, u, v}
	look := func() []host.Descriptor {
		s := openSnapshot(t, h)
		p := readProcess(t, s, os.Getpid())
		var out []host.Descriptor
		for _, f := range files {
			i := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, fd(f)) })
			out = append(out, p.Descriptors[i])
		}
		for _, g := range gapsOf(s, os.Getpid()) {
			// The host's own netlink sockets are in no list.
			if !strings.Contains(g, "the system does not list it in this network namespace") {
				t.Errorf("gap: %q", g)
			}
		}
		return out
	}
	want := look()
	forbid(t, unix.SYS_PIDFD_GETFD)
	if _, err := unix.PidfdGetfd(0, 0, 0); err != unix.EPERM {
		t.Fatalf("pidfd_getfd is not forbidden: %v", err)
	}
	for i, got := range look() {
		if !slices.Equal(got.FDs, want[i].FDs) || got.Kind != want[i].Kind || got.Local != want[i].Local || got.Remote != want[i].Remote ||
			got.State != want[i].State || got.Direction != want[i].Direction || got.Peer != want[i].Peer || got.Mode != want[i].Mode ||
			got.NetNS != want[i].NetNS {
			t.Errorf("listed: %+v\ncopied: %+v", got, want[i])
		}
	}
}

// forbid makes a system call fail with EPERM in this process, for good (seccomp(2)).
func forbid(t *testing.T, call uint32) {
	t.Helper()
	const load, jumpEqual, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // number, of struct seccomp_data
		{Code: jumpEqual, K: call, Jt: 0, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		t.Fatal(os.NewSyscallError("seccomp", e))
	}
}

// TestOtherNamespace has a process in another network namespace, with addresses that mean something else
// here.
func TestOtherNamespace(t *testing.T) {
	needRoot(t)
	c := start(t, "netns", nil, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} })
	r := reportOf(t, c)
	h := openHost(t)
	if _, err := h.Find(t.Context(), host.Flow{Protocol: host.TCP, Local: r.Local, Remote: r.Remote}); err != host.ErrNotFound {
		t.Errorf("the connection is found in the own namespace too: %v", err)
	}
	s := openSnapshot(t, h)
	p := readProcess(t, s, c.pid)
	name := func(inode uint64) host.Object { return object{socketObject, 0, inode}.name() }
	a, b, client, server := name(r.Sockets[0]), name(r.Sockets[1]), name(r.Sockets[2]), name(r.Sockets[3])
	peers := map[host.Object]host.Object{a: b, b: a, client: server, server: client}
	dirs := map[host.Object]host.Direction{client: host.Outbound, server: host.Inbound}
	found := 0
	for _, d := range p.Descriptors {
		want, ok := peers[d.Object]
		if !ok {
			continue
		}
		found++
		if d.Peer != want || d.Direction != dirs[d.Object] || d.Kind.Inet() && d.NetNS != r.NetNS {
			t.Errorf("%+v; want peer %q, network namespace %d", d, want, r.NetNS)
		}
		if got, err := s.Peers(t.Context(), d.Object); err != nil || !slices.Equal(got, []host.Object{want}) {
			t.Errorf("Peers(%q) = %q, %v; want %q", d.Object, got, err, want)
		}
		if hs, err := s.Holders(t.Context(), d.Object); err != nil || len(hs) != 1 || hs[0].PID != c.pid {
			t.Errorf("Holders(%q) = %+v, %v", d.Object, hs, err)
		}
	}
	if found != 4 {
		t.Errorf("%d of 4 sockets found: %+v", found, p.Descriptors)
	}
	if g := gapsOf(s, c.pid); len(g) != 0 {
		t.Errorf("gaps: %q", g)
	}
}

// TestForeignNamespace looks, as a user, at sockets that a process of their own got from a network namespace
// in which they may not ask: what cannot be known is a gap, not an answer about the own namespace.
func TestForeignNamespace(t *testing.T) {
	if os.Getenv(againEnv) == "" {
		needRoot(t)
		// A socket of another namespace, made here: it stays in it wherever it is passed to.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home := openFile(t, "/proc/thread-self/ns/net", unix.O_RDONLY)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		u := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		bind(t, u, sockaddr(unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), 4000)))
		if err := unix.Setns(fd(home), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		again(t, "TestForeignNamespace", func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			cmd.ExtraFiles = []*os.File{u}
		})
		return
	}
	s := openSnapshot(t, openHost(t))
	p := readProcess(t, s, os.Getpid())
	i := slices.IndexFunc(p.Descriptors, func(d host.Descriptor) bool { return slices.Contains(d.FDs, 3) })
	if d := p.Descriptors[i]; d.Kind != host.UDP || d.Local.Port() != 4000 || d.NetNS != 0 || d.Peer != "" {
		t.Errorf("socket of a foreign namespace: %+v", d)
	}
	if g := gapsOf(s, os.Getpid()); !slices.ContainsFunc(g, func(g string) bool { return strings.HasPrefix(g, "descriptor 3: which network namespace") }) {
		t.Errorf("gaps: %q", g)
	}
}

// TestRememberUnprivileged: to remember takes CAP_BPF and CAP_PERFMON and nothing else; without either it says what it takes, and all else goes on.
func TestRememberUnprivileged(t *testing.T) {
	if os.Getenv(againEnv) == "" {
		if os.Geteuid() != 0 {
			t.Skip("must be root")
		}
		for _, caps := range [][]uintptr{{unix.CAP_BPF, unix.CAP_PERFMON}, {unix.CAP_BPF}, {unix.CAP_PERFMON}, nil} {
			again(t, "TestRememberUnprivileged", func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, fmt.Sprint("STOPD_TEST_REMEMBERS=", len(caps) == 2))
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
			})
		}
		return
	}
	h := openHost(t)
	err := h.Remember(Recorder{Memory: 64 << 20, Keep: time.Hour})
	if os.Getenv("STOPD_TEST_REMEMBERS") == "false" {
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_BPF and CAP_PERFMON") {
			t.Errorf("it remembers without privilege: %v", err)
		}
		if s, err := h.Find(t.Context(), conversation(t)); err == nil && s.Recalled {
			t.Errorf("what is over is %+v", s)
		}
		said := strings.Join(Abilities(), "\n")
		if !strings.Contains(said, "connections and processes that have ended: no (") || !strings.Contains(said, "CAP_BPF and CAP_PERFMON") {
			t.Errorf("it can: %s", said)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	f := conversation(t)
	s, err := h.Find(t.Context(), f)
	if err != nil || !s.Recalled || int(s.UID) != os.Getuid() {
		t.Errorf("what is over is %+v, %v", s, err)
	}
	child := start(t, "hold", nil, nil)
	was, err := lookAt(t, h).Process(t.Context(), child.pid)
	if err != nil {
		t.Fatal(err)
	}
	child.end()
	if r, err := lookAt(t, h).Remembered(t.Context(), was.ID()); err != nil || r.Process.Exited == nil || r.Parent.PID != os.Getpid() {
		t.Errorf("a process that is over is %+v, %v", r, err)
	}
}
