package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// outputLimit bounds the wait for the output of a command that has ended, which a program it left
// behind may hold open.
const outputLimit = time.Minute

// environ is the whole environment of a program of u.
func environ(u user) []string {
	return []string{
		"PATH=" + searchPath,
		"HOME=" + u.home,
		"USER=" + u.name,
		"LOGNAME=" + u.name,
		"SHELL=/bin/bash",
		"TERM=dumb",
		"LANG=C.UTF-8",
	}
}

// asUser returns the command line that makes root's process the user's, in the user's home, with extra
// options of setpriv(1), and then executes name. The programs before it replace each other, they do not fork.
func asUser(u user, options []string, name string, args []string) []string {
	argv := append([]string{"setpriv"}, options...)
	if u.uid != 0 {
		argv = append(argv, "--reuid="+strconv.Itoa(u.uid), "--regid="+strconv.Itoa(u.gid), "--init-groups")
	}
	return append(append(argv, "--", "env", "--chdir="+u.home, name), args...)
}

// Command returns a command of root in the host, not yet started. Its parent is outside of the host's
// PID namespace: in the host its parent is 0, as with "docker exec"; [Host.Start] makes children of
// PID 1. The program is killed when ctx ends. One that a signal has stopped must be killed so, or
// continued, before the host is closed.
//
// The command's Process is not the program: to signal that, use kill(1) in the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return h.CommandAs(ctx, "root", name, args...)
}

// CommandAs is Command for another user of the host, in that user's home. A user the host does not
// have is an error of the command's Start.
func (h *Host) CommandAs(ctx context.Context, userName, name string, args ...string) *exec.Cmd {
	u, err := h.user(userName)
	argv := []string{"-t", strconv.Itoa(h.PID), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"}
	// For the case that nsenter alone is killed. After --reuid, which would clear it: setpriv does so.
	argv = append(argv, asUser(u, []string{"--pdeathsig=KILL"}, name, args)...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	cmd.Cancel = func() error { return killEntered(cmd.Process) }
	cmd.Env = environ(u)
	cmd.WaitDelay = outputLimit
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// killEntered kills the program that an nsenter waits for. Killing nsenter instead would leave the
// program's corpse to the machine's init, which in a container may never reap it; and until then the
// host's PID namespace cannot end.
func killEntered(nsenter *os.Process) error {
	children, err := childrenOf(nsenter.Pid)
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return nsenter.Kill() // not forked yet
	}
	for _, child := range children {
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return os.NewSyscallError("kill", err)
		}
	}
	// It stops when its child is stopped.
	return nsenter.Signal(syscall.SIGCONT)
}

// childrenOf looks at every process: /proc/PID/task/TID/children is not in all kernels.
func childrenOf(parent int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended, and a child of nsenter would stay for nsenter to reap
		}
		// "PID (name) state parent …": the name may hold anything, proc_pid_stat(5).
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	return children, nil
}

// Run runs a command of root in the host and returns its standard output. The error holds its standard
// error, and wraps the [exec.ExitError].
func (h *Host) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return h.RunAs(ctx, "root", name, args...)
}

// RunAs is Run for another user of the host.
func (h *Host) RunAs(ctx context.Context, userName, name string, args ...string) ([]byte, error) {
	cmd := h.CommandAs(ctx, userName, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("run %q on %q: %w: %s", name, h.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// Daemon is a program started by a host's PID 1.
type Daemon struct {
	Name string
	PID  int // as the host sees it

	host *Host
	log  string
	exit *exit
}

// daemonNames numbers the daemons of a host, for the names of their logs.
type daemonNames struct {
	mu    sync.Mutex
	count int
}

// Start starts a program as root's child of PID 1, leader of a session of its own, with /dev/null as
// input and a file of its own as output. It does not wait for the daemon to be ready: see
// [Host.WaitListen] and [WaitFor].
func (h *Host) Start(name string, args ...string) (*Daemon, error) {
	return h.StartAs("root", name, args...)
}

// StartAs is Start for another user of the host.
func (h *Host) StartAs(userName, name string, args ...string) (*Daemon, error) {
	u, err := h.user(userName)
	if err != nil {
		return nil, fmt.Errorf("start %q on %q: %w", name, h.Name, err)
	}
	h.daemons.mu.Lock()
	h.daemons.count++
	log := fmt.Sprintf("/var/log/netlab/%d-%s.log", h.daemons.count, filepath.Base(name))
	h.daemons.mu.Unlock()
	s, err := h.control.send(order{Program: name, Args: asUser(u, nil, name, args), Env: environ(u), Log: log})
	if err != nil {
		return nil, fmt.Errorf("start %q on %q: %w", name, h.Name, err)
	}
	return &Daemon{Name: name, PID: s.PID, host: h, log: log, exit: s.exit}, nil
}

// Log returns what the daemon has written to its standard output and error. It is gone with the host.
func (d *Daemon) Log() (string, error) {
	data, err := d.host.ReadFile(d.log)
	return string(data), err
}

// Done is closed when the daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.exit.done }

// Status returns how the daemon ended, once Done is closed. One that ended with its host was killed.
func (d *Daemon) Status() syscall.WaitStatus {
	<-d.exit.done
	return d.exit.status
}

// Signal sends a signal to the daemon, not to its children. After its end this is an error.
func (d *Daemon) Signal(sig syscall.Signal) error {
	if _, err := d.host.control.send(order{Signal: int(sig), PID: d.PID}); err != nil {
		return fmt.Errorf("signal %q on %q: %w", d.Name, d.host.Name, err)
	}
	return nil
}

// Stop asks the daemon to end, with SIGTERM, and returns when it has; nil if it had ended before.
// One that does not obey within ctx, or a minute, is killed, which is an error.
func (d *Daemon) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	select {
	case <-d.exit.done:
		return nil
	default:
	}
	termErr := d.Signal(syscall.SIGTERM)
	select {
	case <-d.exit.done:
		return nil
	case <-ctx.Done():
	}
	killErr := d.Signal(syscall.SIGKILL)
	if killErr == nil {
		<-d.exit.done
	}
	return errors.Join(fmt.Errorf("stop %q on %q: %w", d.Name, d.host.Name, context.Cause(ctx)), termErr, killErr)
}
