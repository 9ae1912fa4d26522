package linux

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stopd/stopd/host"
)

// openTerminal opens a terminal at a multiplexer and returns both sides and its number.
func openTerminal(t *testing.T, ptmx, dir string) (master, slave *os.File, number int) {
	t.Helper()
	master = openFile(t, ptmx, unix.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(fd(master), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd(master), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return master, openFile(t, filepath.Join(dir, strconv.Itoa(number)), unix.O_RDWR|unix.O_NOCTTY), number
}

// devpts mounts a file system of terminals in a mount namespace of its own, as containers have, and opens
// terminals there until one has the number.
func devpts(t *testing.T, number int) (master, slave *os.File) {
	t.Helper()
	dir := t.TempDir()
	err := apart(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("test", dir, "devpts", 0, "newinstance,ptmxmode=0666,mode=0600")); err != nil {
			return err
		}
		for n := -1; n < number; {
			if master != nil {
				defer master.Close()
				defer slave.Close()
			}
			master, slave, n = openTerminal(t, dir+"/ptmx", dir)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestTerminalsOfContainers has terminals with one number on three file systems, whose masters were sent to
// processes that see another one: only the sides of each are joined.
func TestTerminalsOfContainers(t *testing.T) {
	needRoot(t)
	m1, s1, number := openTerminal(t, "/dev/ptmx", "/dev/pts")
	m2, s2 := devpts(t, number)
	m3, s3 := devpts(t, number)
	type pair struct{ master, slave int }
	var pairs []pair
	for _, fs := range [][2]*os.File{{m1, s1}, {m2, s2}, {m3, s3}} {
		m := start(t, "hold", fs[:1], nil).pid
		// Each has the terminal as its own, and holds it by /dev/tty alone.
		s := start(t, "tty", fs[1:], func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3} }).pid
		pairs = append(pairs, pair{m, s})
	}
	for _, f := range []*os.File{m1, s1, m2, s2, m3, s3} {
		f.Close()
	}
	objects := map[host.Object]bool{}
	for _, p := range pairs {
		s := openSnapshot(t, openHost(t))
		d := only(t, readProcess(t, s, p.master), func(d host.Descriptor) bool { return d.Kind == host.PTY })
		if d.Side != host.Master || *d.Number != number || d.Object == "" || objects[d.Object] {
			t.Errorf("master %+v; want one of terminal %d that no other is", d, number)
		}
		objects[d.Object] = true
		if got := pids(t, s, d.Object); !slices.Equal(got, []int{p.master}) {
			t.Errorf("the master is held by %v, want %d", got, p.master)
		}
		if g := gapsOf(s, p.master); len(g) > 0 {
			t.Errorf("gaps of the master: %q", g)
		}
		// Nobody holds the slave but by /dev/tty: the session tells which of the three that is.
		if got := pids(t, s, d.Peer); !slices.Equal(got, []int{p.slave}) {
			t.Errorf("the slave is held by %v, want %d", got, p.slave)
		}
		slave := only(t, readProcess(t, s, p.slave), func(d host.Descriptor) bool { return d.Kind == host.PTY })
		if slave.Object != d.Peer {
			t.Errorf("/dev/tty is %q, want %q", slave.Object, d.Peer)
		}
		if g := gapsOf(s, p.slave); len(g) > 0 {
			t.Errorf("gaps of the slave: %q", g)
		}
	}
	// Of one that left the session nothing tells: nobody is named, and that is a gap.
	m4, s4 := devpts(t, number)
	left := start(t, "tty", []*os.File{s4}, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
		cmd.Env = append(cmd.Env, "STOPD_TEST_MODE=leave")
	})
	m := start(t, "hold", []*os.File{m4}, nil).pid
	m4.Close()
	s4.Close()
	pid := reportOf(t, left).PID
	s := openSnapshot(t, openHost(t))
	d := only(t, readProcess(t, s, m), func(d host.Descriptor) bool { return d.Kind == host.PTY })
	if got := pids(t, s, d.Peer); slices.Contains(got, pid) {
		t.Errorf("the slave is held by %v; want nobody of another session", got)
	}
	readProcess(t, s, pid)
	if g := gapsOf(s, pid); !slices.ContainsFunc(g, func(g string) bool { return strings.HasSuffix(g, errTerminal.Error()) }) {
		t.Errorf("gaps %q of process %d lack that of its terminal", g, pid)
	}
}

// TestControllingTerminal has a process that holds its terminal by /dev/tty alone, and a stranger with another
// terminal.
func TestControllingTerminal(t *testing.T) {
	needRoot(t)
	own := func() (master, by int) {
		m, s, _ := openTerminal(t, "/dev/ptmx", "/dev/pts")
		defer m.Close()
		defer s.Close()
		master = start(t, "hold", []*os.File{m}, nil).pid
		return master, start(t, "tty", []*os.File{s}, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3} }).pid
	}
	master, by := own()
	own()
	readProcess(t, openSnapshot(t, openHost(t)), by) // before anything else
	s := openSnapshot(t, openHost(t))
	d := only(t, readProcess(t, s, master), func(d host.Descriptor) bool { return d.Kind == host.PTY })
	if got := pids(t, s, d.Peer); !slices.Equal(got, []int{by}) {
		t.Errorf("the slave is held by %v, want %d", got, by)
	}
	slave := only(t, readProcess(t, s, by), func(d host.Descriptor) bool { return d.Kind == host.PTY })
	if slave.Object != d.Peer || slave.Peer != d.Object || slave.Path != "/dev/tty" || slave.Side != host.Slave || *slave.Number != *d.Number {
		t.Errorf("/dev/tty is %+v, of master %+v", slave, d)
	}
	if g := gapsOf(s, by); len(g) > 0 {
		t.Errorf("gaps %q", g)
	}
}

// TestConsole has processes on one virtual terminal, and one on another.
func TestConsole(t *testing.T) {
	needRoot(t)
	hold := func(path string) int {
		f, err := os.OpenFile(path, unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Skipf("no virtual terminals: %v", err)
		}
		defer f.Close()
		return start(t, "hold", []*os.File{f}, nil).pid
	}
	a, b, other := hold("/dev/tty61"), hold("/dev/tty61"), hold("/dev/tty62")
	shared(t, host.TTY, a, b)
	shared(t, host.TTY, other)
	// One who has it as /dev/tty holds the same.
	f := openFile(t, "/dev/tty62", unix.O_RDWR|unix.O_NOCTTY)
	by := start(t, "tty", []*os.File{f}, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3} }).pid
	f.Close()
	shared(t, host.TTY, other, by)
}
