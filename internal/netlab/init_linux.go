package netlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

const (
	// initName is argv[0] of an init, and what tells it from other runs of the same program.
	initName = "netlab-init"

	// orderFD is where an init finds its socket to the lab.
	orderFD = 3

	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// initCalled guards against a program that makes a lab without having called [Init]: its inits would
// run its main function again, and make labs in turn.
var initCalled bool

// The init keeps to the first thread of its process, which only init functions can ask for: it becomes systemd in it,
// and of those that another thread makes so the kernel kills some (Linux 6.18, one of four).
func init() {
	if len(os.Args) > 0 && os.Args[0] == initName {
		runtime.LockOSThread()
	}
}

// Init is PID 1 of a host and does not return if this process was started as such; otherwise it returns
// at once. A program that makes labs calls it first thing in main, a test package in TestMain.
func Init() {
	initCalled = true
	if len(os.Args) == 0 || os.Args[0] != initName {
		return
	}
	conn := os.NewFile(orderFD, "orders")
	syscall.CloseOnExec(orderFD)
	in := &initServer{
		orders:  json.NewDecoder(conn),
		answers: json.NewEncoder(conn),
		started: map[int]bool{},
	}
	// Handled and dropped, not ignored: an ignored signal stays ignored in the programs started.
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2)
	in.serve()
	os.Exit(0)
}

// initServer obeys one lab. The mutex orders forks, reaping and what is written to the lab: the answer
// to a start always precedes the notice of that program's end.
type initServer struct {
	orders *json.Decoder

	mu      sync.Mutex
	answers *json.Encoder
	started map[int]bool
}

// serve returns when the lab is gone.
func (in *initServer) serve() {
	var s setup
	if err := in.orders.Decode(&s); err != nil {
		return
	}
	if s.Systemd {
		err := errors.Join(endWithLab(), prepare(s))
		if err != nil {
			in.answers.Encode(answer{Error: err.Error()})
			return
		}
		// Without an answer the lab is gone, before it could have been noticed.
		if in.answers.Encode(answer{}) == nil {
			becomeSystemd() // where it fails the host has ended, which the lab sees
		}
		return
	}
	if err := prepare(s); err != nil {
		in.answers.Encode(answer{Error: err.Error()})
		return
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			in.reap()
		}
	}()
	if err := in.answers.Encode(answer{}); err != nil {
		return
	}
	for {
		var o order
		if err := in.orders.Decode(&o); err != nil {
			return
		}
		in.obey(o)
	}
}

func (in *initServer) obey(o order) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var a answer
	var err error
	if o.Signal != 0 {
		err = in.signal(o)
	} else {
		a.PID, err = in.start(o)
	}
	if err != nil {
		a.Error = err.Error()
	}
	in.answers.Encode(a)
}

// signal sends a signal to what this init has started and not reaped, so never to another program that
// got the number since.
func (in *initServer) signal(o order) error {
	if !in.started[max(o.PID, -o.PID)] {
		return fmt.Errorf("signal process %d: %w", o.PID, os.ErrProcessDone)
	}
	return os.NewSyscallError("kill", syscall.Kill(o.PID, syscall.Signal(o.Signal)))
}

func (in *initServer) start(o order) (int, error) {
	if _, err := exec.LookPath(o.Program); err != nil {
		return 0, fmt.Errorf("start program: %w", err)
	}
	path, err := exec.LookPath(o.Args[0])
	if err != nil {
		return 0, fmt.Errorf("start program: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Log), 0o755); err != nil {
		return 0, err
	}
	// For appending, so that a daemon which reopens or truncates the file leaves no hole.
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, o.Args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   o.Env,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %q: %w", path, err)
	}
	in.started[pid] = true
	return pid, nil
}

// reap collects every child that has ended, orphans included.
func (in *initServer) reap() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if in.started[pid] {
			delete(in.started, pid)
			in.answers.Encode(answer{PID: pid, Exited: true, Status: uint32(status)})
		}
	}
}

// prepare makes the namespaces of this process what s says.
func prepare(s setup) error {
	if s.Hostname == "" {
		// The switch only forwards: addresses of its own would answer, and be seen, on the link.
		return writeSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
	}
	if err := syscall.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", s.Hostname, err)
	}
	if err := makeRoot(s); err != nil {
		return fmt.Errorf("make root of %q: %w", s.Hostname, err)
	}
	if err := errors.Join(
		os.WriteFile("/proc/1/comm", []byte("init"), 0), // else "exe", after /proc/self/exe
		writeSysctl("/proc/sys/net/ipv6/conf/default/accept_dad", "0"),
	); err != nil {
		return err
	}
	if s.Systemd {
		return becomeContainer(s)
	}
	return nil
}

// writeSysctl sets a kernel parameter of this process's namespaces. A kernel without IPv6 lacks some.
func writeSysctl(path, value string) error {
	err := os.WriteFile(path, []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
