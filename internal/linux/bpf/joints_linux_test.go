package bpf

import (
	"bufio"
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

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/internal/recorder"
)

// until reads events until something is true.
func (r *remembering) until(t *testing.T, is func() bool) {
	t.Helper()
	for r.catchUp(t); !is(); r.catchUp(t) {
		if t.Context().Err() != nil {
			t.Fatal("the test is over")
		}
		runtime.Gosched()
	}
}

// child returns the process of a program that another made.
func (r *remembering) children(parent uint32, exe string) (found []recorder.Process) {
	for _, ev := range r.all {
		if p, ok := r.Process(ev.Process.PID, ev.Process.Start, ev.Process.Start); ok && ev.Kind == recorder.Forked && p.Parent.PID == parent && string(p.Exe) == exe {
			found = append(found, p)
		}
	}
	return found
}

// a is what a process had of a class, and with whom; the bits of its mode that are given.
func (r *remembering) joined(t *testing.T, id recorder.ID, class recorder.Class, mode recorder.Mode) (found []recorder.Joined) {
	t.Helper()
	all, more := r.Joined(id, 10)
	if more {
		t.Errorf("%v may have had more than %+v", id, all)
	}
	for _, j := range all {
		if j.Object.Class == class && j.Mode&mode == mode {
			found = append(found, j)
		}
	}
	return found
}

// hasPipe reports whether a process has a descriptor of a pipe.
func hasPipe(t *testing.T, pid int) bool {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, err := os.Readlink(fd)
		return err == nil && strings.HasPrefix(to, "pipe:")
	})
}

// TestPipeline: of two programs that a pipe and a FIFO joined and that have ended both are known, and the shell is not one of them.
func TestPipeline(t *testing.T) {
	r := remember(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const program = "/bin/cat"
	cmd := exec.Command("/bin/sh", "-c", program+` <"$1" | `+program+` >"$1"; :`, "sh", fifo)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var cats []recorder.Process
	// Who is killed before his program has begun was not looked at then, and a shell that has not closed the pipe yet has it as it ends.
	r.until(t, func() bool {
		cats = r.children(uint32(cmd.Process.Pid), program)
		return len(cats) == 2 && !slices.ContainsFunc(cats, func(c recorder.Process) bool { return len(r.joined(t, c.ID, recorder.Pipe, 0)) < 2 }) && !hasPipe(t, cmd.Process.Pid)
	})
	unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	cmd.Wait()
	r.until(t, func() bool {
		cats = r.children(uint32(cmd.Process.Pid), program)
		return cats[0].Exited != 0 && cats[1].Exited != 0
	})
	if len(r.joined(t, cats[0].ID, recorder.Pipe, recorder.Writes)) == 0 || len(r.joined(t, cats[1].ID, recorder.Pipe, recorder.Reads)) == 0 {
		slices.Reverse(cats)
	}
	var st unix.Stat_t
	if err := unix.Stat(fifo, &st); err != nil {
		t.Fatal(err)
	}
	for i, c := range cats {
		other := cats[1-i].ID
		for _, way := range []recorder.Mode{recorder.Reads, recorder.Writes} {
			found := r.joined(t, c.ID, recorder.Pipe, way)
			if len(found) != 1 || found[0].Mode != way || !slices.Equal(found[0].With, []recorder.With{{ID: other, Mode: way ^ (recorder.Reads | recorder.Writes)}}) {
				t.Errorf("what %v had in mode %d is %+v, not one pipe with %v", c.ID, way, found, other)
			} else if fifo := found[0].Object.Number == st.Ino; fifo != (i == 0 == (way == recorder.Reads)) {
				t.Errorf("what %v had in mode %d is the FIFO: %v", c.ID, way, fifo)
			}
		}
	}
	shell, _ := r.Process(uint32(cmd.Process.Pid), 0, 1<<63)
	for _, j := range r.joined(t, shell.ID, recorder.Pipe, 0) {
		if slices.ContainsFunc(j.With, func(w recorder.With) bool { return w.ID == cats[0].ID }) {
			t.Errorf("the shell had %+v", j)
		}
	}
}

// TestMetJoined: what a process had that was there before is met.
func TestMetJoined(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := os.NewFile(uintptr(pair[0]), "")
	defer near.Close()
	defer unix.Close(pair[1])
	cmd := exec.Command("/bin/cat")
	cmd.Stdin, cmd.Stdout = in, near
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := remember(t)
	cmd.Process.Kill()
	cmd.Wait()
	var p recorder.Process
	r.until(t, func() bool {
		p, _ = r.Process(uint32(cmd.Process.Pid), 0, 1<<63)
		return p.Exited != 0
	})
	if !p.Met || len(r.joined(t, p.ID, recorder.Pipe, recorder.Reads)) != 1 {
		t.Errorf("%+v had %+v", p, r.joined(t, p.ID, recorder.Pipe, 0))
	}
	// This process has both ends still, the one of them as it gave it to the program.
	found := r.joined(t, p.ID, recorder.Unix, 0)
	if len(found) != 1 || !slices.Equal(found[0].With, []recorder.With{{ID: r.self, Mode: recorder.Reads | recorder.Writes}}) {
		t.Errorf("it had %+v, and not with %v", found, r.self)
	}
}

// pumpRole joins three programs to itself, by socket pairs and a terminal, and closes all ends once they have ended.
func pumpRole() error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	ends := []*os.File{slave}
	own := []*os.File{master}
	for range 2 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		own, ends = append(own, os.NewFile(uintptr(pair[0]), "")), append(ends, os.NewFile(uintptr(pair[1]), ""))
	}
	var cats []*exec.Cmd
	for _, f := range ends {
		c := exec.Command("/bin/cat")
		c.Stdin, c.Stdout, c.Stderr = f, f, os.Stderr
		if err := c.Start(); err != nil {
			return err
		}
		f.Close()
		cats = append(cats, c)
		fmt.Println(c.Process.Pid)
	}
	bufio.NewReader(os.Stdin).ReadString('\n')
	for i, c := range cats {
		c.Process.Kill()
		c.Wait()
		own[i].Close()
	}
	return nil
}

// TestPump: whom a process was joined to that had made the channel, and has closed its end before it ended.
func TestPump(t *testing.T) {
	r := remember(t)
	cmd := role("pump")
	in, out := start(t, cmd)
	lines := bufio.NewScanner(out)
	var pids []uint32
	for len(pids) < 3 && lines.Scan() {
		n, _ := strconv.Atoi(lines.Text())
		pids = append(pids, uint32(n))
	}
	fmt.Fprintln(in)
	if err := cmd.Wait(); err != nil || len(pids) < 3 {
		t.Fatal(err, pids)
	}
	var pump recorder.Process
	r.until(t, func() bool {
		pump, _ = r.Process(uint32(cmd.Process.Pid), 0, 1<<63)
		return pump.Exited != 0
	})
	for i, class := range []recorder.Class{recorder.Slave, recorder.Unix, recorder.Unix} {
		p, ok := r.Process(pids[i], 0, 1<<63)
		found := r.joined(t, p.ID, class, recorder.Reads|recorder.Writes)
		if !ok || p.Exited == 0 || len(found) != 1 || !slices.Equal(found[0].With, []recorder.With{{ID: pump.ID, Mode: recorder.Reads | recorder.Writes}}) {
			t.Errorf("child %d, %+v, %v, had %+v, not one end whose other %v had", i, p, ok, found, pump.ID)
		}
	}
	for class, n := range map[recorder.Class]int{recorder.Master: 1, recorder.Unix: 2} {
		for _, j := range r.joined(t, pump.ID, class, 0) {
			if len(j.With) > 0 {
				n--
			}
		}
		if n != 0 {
			t.Errorf("the pump lacks %d of class %d: %+v", n, class, r.joined(t, pump.ID, class, 0))
		}
	}
}
