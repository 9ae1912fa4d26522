package bpf

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

func TestConnections(t *testing.T) {
	alone(t)
	r := remember(t)
	netns := inode(t, "/proc/thread-self/ns/net")
	for _, c := range []struct{ name, listen, to string }{
		{"IPv4", "127.0.0.1:0", ""},
		{"IPv6", "[::1]:0", ""},
		{"IPv4 mapped", "[::]:0", "127.0.0.1"},
	} {
		l, err := net.Listen("tcp", c.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		to := l.Addr().String()
		if c.to != "" {
			to = net.JoinHostPort(c.to, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		}
		before := now(t)
		local, remote := converse(t, l, to)
		r.catchUp(t)
		check := func(local, remote netip.AddrPort, dir recorder.Direction, sent, received uint64) {
			t.Helper()
			got, ok := r.Latest(local, remote, netns, now(t))
			if !ok {
				t.Errorf("%s: nothing is remembered of %v to %v", c.name, local, remote)
				return
			}
			if got.Direction != dir || got.Opened < before || got.Closed < got.Opened || !slices.Equal(got.Holders, []recorder.ID{r.self}) || got.More || got.Met || got.Unsure {
				t.Errorf("%s: remembered is %+v, not direction %d and held by %v", c.name, got, dir, r.self)
			}
			// A SYN and a FIN count as one each.
			if got.Sent < sent || got.Sent > sent+2 || got.Received < received || got.Received > received+2 {
				t.Errorf("%s: %d octets were sent and %d received, not %d and %d", c.name, got.Sent, got.Received, sent, received)
			}
			if _, ok := r.Latest(local, remote, netns+1, now(t)); ok {
				t.Errorf("%s: it is remembered in another namespace", c.name)
			}
		}
		check(local, remote, recorder.Outbound, 8, 0)
		check(remote, local, recorder.Inbound, 0, 8)
	}
}

// TestRefused: what was never established is not remembered.
func TestRefused(t *testing.T) {
	alone(t)
	r := remember(t)
	if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
		c.Close()
		t.Fatal("somebody listens")
	}
	r.catchUp(t)
	cookies := 0
	for _, ev := range r.all {
		if ev.Kind == recorder.Connecting && ev.Process.ID == r.self {
			cookies++
			if c, ok := r.ByCookie(ev.Connection.Cookie, 1<<63); ok {
				t.Errorf("remembered: %+v", c)
			}
		}
	}
	if cookies == 0 {
		t.Error("nobody tried to connect")
	}
}

// TestHandedOn: a connection that one process accepts and another uses and closes is the other's. That the first had it is not told.
func TestHandedOn(t *testing.T) {
	alone(t)
	r := remember(t)
	if err := r.Untold; err != nil {
		t.Skip(err)
	}
	l := loopback(t)
	c, a := connection(t, l)
	f, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	cmd := exec.Command("/bin/sh", "-c", "echo hello >&3; read x")
	cmd.ExtraFiles = []*os.File{f}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	in.Close() // now it alone has it, and ends
	cmd.Wait()
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	c.Close()
	r.catchUp(t)
	netns := inode(t, "/proc/thread-self/ns/net")
	got, _ := r.Latest(remote, local, netns, now(t))
	if len(got.Holders) != 1 || got.Holders[0].PID != uint32(cmd.Process.Pid) {
		t.Errorf("the accepted end was held by %v, not by %d alone, who used and closed it", got.Holders, cmd.Process.Pid)
	}
	if held, _ := r.Held(got.Holders[0], 0, 1<<64-1, false, 10); len(held) != 1 || held[0].Cookie != got.Cookie {
		t.Errorf("the process held %+v", held)
	}
}

// TestChildren: who made a process is known when its parent has ended and another has adopted it.
func TestChildren(t *testing.T) {
	r := remember(t)
	// The first shell makes a second, which makes the third and ends: it is adopted.
	cmd := exec.Command("/bin/sh", "-c", `/bin/sh -c '/bin/sh -c "echo \$\$; exec /bin/cat" <&3 3<&- & echo $$' ; exit 0`)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{in}
	// A session of its own: the one of the tests may be led from outside their PID namespace, where it has no number.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	lines := bufio.NewScanner(said)
	var pids []int
	for range 2 {
		if !lines.Scan() {
			t.Fatal("a shell did not say who it is")
		}
		pid, _ := strconv.Atoi(lines.Text())
		pids = append(pids, pid)
	}
	var state unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &state, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(pids)
	second, third := uint32(pids[0]), uint32(pids[1])
	r.catchUp(t)
	p, ok := r.Process(third, 0, 1<<63)
	if !ok || p.Parent.PID != second || p.Exited != 0 {
		t.Fatalf("the third is %+v, %v, not made by %d", p, ok, second)
	}
	q, ok := r.Process(p.Parent.PID, p.Parent.Start, p.Parent.Start)
	if !ok || q.Exited == 0 || string(q.Exe) != "/bin/sh" || string(q.Name) != "sh" || q.Met || int(q.Parent.PID) != cmd.Process.Pid {
		t.Errorf("who made it is %+v, %v, not an ended sh made by %d", q, ok, cmd.Process.Pid)
	}
	first, ok := r.Process(q.Parent.PID, q.Parent.Start, q.Parent.Start)
	if !ok || first.Exited == 0 || first.Parent != r.self || int(first.RUID) != os.Getuid() || first.Session != first.ID.PID {
		t.Errorf("the first is %+v, %v, not made by %v", first, ok, r.self)
	}
	out.Close()
	io.Copy(io.Discard, said) // until the third has closed it
	cmd.Wait()
	for p.Exited == 0 && !t.Failed() {
		r.catchUp(t)
		p, _ = r.Process(third, 0, 1<<63)
		runtime.Gosched()
	}
	if string(p.Name) != "cat" || string(p.Exe) != "/bin/cat" {
		t.Errorf("it ended as %+v", p)
	}
}

// insideRole is the first process of a PID namespace: it remembers, makes a child, and says what it has remembered of
// processes.
func insideRole() error {
	e, err := OpenEvents(0)
	if err != nil {
		return err
	}
	defer e.Close()
	say := func(ev *recorder.Event) {
		if ev.Process.PID != 0 {
			fmt.Println(ev.Kind, ev.Process.PID, ev.Process.Parent.PID)
		}
	}
	if err := e.Met(new(sync.Mutex), say); err != nil {
		return err
	}
	fmt.Println("met")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		return err
	}
	return e.Read(func(evs []recorder.Event) {
		for i := range evs {
			say(&evs[i])
		}
	})
}

// TestNamespace: in a PID namespace of its own the daemon has its own numbers, and its own processes alone.
func TestNamespace(t *testing.T) {
	remember(t).Close()
	cmd := role("inside")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	in, out := start(t, cmd)
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "met" {
		var kind, pid, parent int
		if fmt.Sscan(lines.Text(), &kind, &pid, &parent); kind != int(recorder.ProcessMet) || pid != 1 || parent != 0 {
			t.Errorf("it met %q, not itself alone", lines.Text())
		}
	}
	if err := exec.Command("/bin/true").Run(); err != nil { // which is none of its own
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	// Go tries a feature of the kernel with a child before its first real one.
	pid := 0
	for _, line := range got {
		var kind, n, parent int
		fmt.Sscan(line, &kind, &n, &parent)
		if n < 2 || n > 100 || parent != 1 && kind == int(recorder.Forked) {
			t.Errorf("it remembers %q", line)
		}
		if kind == int(recorder.Executed) {
			pid = n
		}
	}
	if pid == 0 || !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf("%d %d ", recorder.Exited, pid)) }) {
		t.Errorf("it remembers %q, and no child that ran a program and ended", got)
	}
}

// TestMet: what was there before is met with its holder and direction.
func TestMet(t *testing.T) {
	alone(t)
	l := loopback(t)
	c, a := connection(t, l)
	r := remember(t)
	netns := inode(t, "/proc/thread-self/ns/net")
	for _, end := range []struct {
		of  net.Conn
		dir recorder.Direction
	}{{c, recorder.Outbound}, {a, recorder.Inbound}} {
		local, remote := end.of.LocalAddr().(*net.TCPAddr).AddrPort(), end.of.RemoteAddr().(*net.TCPAddr).AddrPort()
		got, ok := r.Latest(local, remote, netns, now(t))
		if !ok || !got.Met || got.Direction != end.dir || got.Closed != 0 || !slices.Equal(got.Holders, []recorder.ID{r.self}) {
			t.Errorf("met: %+v, %v, not of direction %d and held by %v", got, ok, end.dir, r.self)
		}
	}
}

// A turn is a lock that counts how often it is given up.
type turn struct {
	held  bool
	given int
}

func (t *turn) Lock()   { t.held = true }
func (t *turn) Unlock() { t.held = false; t.given++ }

// TestSteps: what there is is listed by steps, so that whoever else reads events waits for one alone.
func TestSteps(t *testing.T) {
	alone(t)
	l := loopback(t)
	const pairs = 400 // more than one step has
	for range pairs {
		connection(t, l)
	}
	r := remember(t)
	var lock turn
	connections, turns := 0, map[int]bool{}
	if err := r.Met(&lock, func(ev *recorder.Event) {
		if !lock.held {
			t.Error("it is told of what there is without the lock")
		}
		if ev.Kind == recorder.ConnectionMet && ev.Process.ID == r.self {
			connections++
			turns[lock.given] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	if lock.held || connections < 2*pairs || len(turns) < 2 {
		t.Errorf("%d connections are listed in %d steps", connections, len(turns))
	}
}

// TestKernelThreads: the kernel's own threads, which have no program, user or descriptor, are not remembered; what there is beside them is.
func TestKernelThreads(t *testing.T) {
	remember(t).Close()
	e, err := OpenEvents(0)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	seen := 0
	if err := e.Met(new(sync.Mutex), func(ev *recorder.Event) {
		if ev.Kind != recorder.ProcessMet {
			return
		}
		seen++
		// proc(5): the ninth field is the flags; PF_KTHREAD is of linux/sched.h.
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ev.Process.PID))
		if err != nil {
			return // it has ended
		}
		var flags uint32
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 6 {
			fmt.Sscan(f[6], &flags)
		}
		if flags&0x00200000 != 0 {
			t.Errorf("met the kernel's thread %d, %s", ev.Process.PID, ev.Process.Name)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if seen < 2 {
		t.Errorf("met %d processes", seen)
	}
}
