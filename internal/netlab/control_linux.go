package netlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// endLimit bounds the wait for an init that was told to end.
const endLimit = time.Minute

// control is the lab's hold on one init: closing conn ends it.
type control struct {
	cmd    *exec.Cmd
	conn   *os.File
	cgroup string        // of its own, "" where it has none
	ended  chan struct{} // closed when the init is reaped, all of its PID namespace with it

	mu      sync.Mutex // orders requests: an answer belongs to the one request under way
	encoder *json.Encoder
	answers chan started
}

// started is an answer, and the program it tells of.
type started struct {
	answer
	exit *exit
}

// exit is the end of one program. status is valid once done is closed.
type exit struct {
	done   chan struct{}
	status syscall.WaitStatus
}

// startInit starts an init in new namespaces and returns when it has made what s says.
func startInit(s setup, cloneflags uintptr) (*control, error) {
	if !initCalled {
		return nil, errors.New("start init: the program has not called netlab.Init")
	}
	attr := &syscall.SysProcAttr{Cloneflags: cloneflags, Setsid: true}
	var cgroup string
	if s.Systemd {
		var err error
		if cgroup, err = makeCgroup(s.Lab + "-" + s.Hostname); err != nil {
			return nil, fmt.Errorf("start init: %w", err)
		}
		dir, err := os.Open(cgroup)
		if err != nil {
			return nil, fmt.Errorf("start init: %w", err)
		}
		defer dir.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "orders")
	defer theirs.Close()
	// Else Close would not end a blocked read, and os.NewFile looks at this flag.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), syscall.Close(fds[0]))
	}
	c := &control{
		cmd: &exec.Cmd{
			Path: "/proc/self/exe",
			Args: []string{initName, s.Lab, s.Hostname},
			// A program built with -race sleeps a second before it exits, unless told not to.
			Env:         []string{"PATH=" + searchPath, "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0"},
			Dir:         "/",
			ExtraFiles:  []*os.File{theirs},
			SysProcAttr: attr,
		},
		conn:    os.NewFile(uintptr(fds[0]), "orders"),
		cgroup:  cgroup,
		ended:   make(chan struct{}),
		answers: make(chan started),
	}
	c.encoder = json.NewEncoder(c.conn)
	began := make(chan error)
	go func() {
		runtime.LockOSThread() // see endWithLab: this thread lives as long as the init
		err := c.cmd.Start()
		began <- err
		if err == nil {
			c.cmd.Wait()
			close(c.ended)
		}
	}()
	if err := <-began; err != nil {
		return nil, errors.Join(fmt.Errorf("start init: %w", err), c.conn.Close(), c.removeCgroup())
	}
	go c.read()
	if _, err := c.send(s); err != nil {
		return nil, errors.Join(fmt.Errorf("start init: %w", err), c.close())
	}
	return c, nil
}

// read passes answers to send, and the ends of programs to those who wait for them.
func (c *control) read() {
	defer close(c.answers)
	running := map[int]*exit{}
	for decoder := json.NewDecoder(c.conn); ; {
		var a answer
		if err := decoder.Decode(&a); err != nil {
			break
		}
		if a.Exited {
			running[a.PID].status = syscall.WaitStatus(a.Status)
			close(running[a.PID].done)
			delete(running, a.PID)
			continue
		}
		if a.PID > 0 {
			running[a.PID] = &exit{done: make(chan struct{})}
		}
		c.answers <- started{a, running[a.PID]}
	}
	// Whatever ran in the host was killed with its PID 1.
	<-c.ended
	for _, e := range running {
		e.status = syscall.WaitStatus(syscall.SIGKILL)
		close(e.done)
	}
}

// send sends a setup or an order and returns its answer.
func (c *control) send(message any) (started, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := message.(order); ok && c.cgroup != "" {
		return started{}, errors.New("systemd takes no orders: use systemctl or systemd-run")
	}
	if err := c.encoder.Encode(message); err != nil {
		return started{}, err
	}
	s, ok := <-c.answers
	if !ok {
		return started{}, fmt.Errorf("init has ended: %s", c.cmd.ProcessState)
	}
	if s.Error != "" {
		return started{}, errors.New(s.Error)
	}
	return s, nil
}

// close ends the init, and returns when it is reaped. It may be called again.
func (c *control) close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	if c.cgroup != "" {
		c.cmd.Process.Kill() // systemd does not look at conn
	}
	select {
	case <-c.ended:
		return c.removeCgroup()
	case <-time.After(endLimit):
	}
	// PID 1 waits for processes whose parent is outside of its namespace and does not reap them:
	// pid_namespaces(7). Its end may have to wait for that parent's.
	c.cmd.Process.Kill()
	return fmt.Errorf("end init %d: not gone after %s", c.cmd.Process.Pid, endLimit)
}

// removeCgroup removes the init's control group, once. The kernel may take some milliseconds to leave it.
func (c *control) removeCgroup() error {
	if c.cgroup == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	return WaitFor(ctx, func() (bool, error) {
		err := removeCgroup(c.cgroup)
		if errors.Is(err, syscall.EBUSY) {
			return false, nil
		}
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err == nil, err
	})
}
