//go:build unix

package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ends of the links between roles, for each role in the order of links.
type ends map[role][]*os.File

func (e ends) close() {
	for _, files := range e {
		for _, f := range files {
			f.Close()
		}
	}
}

// joinAll makes the links between roles.
func joinAll() (ends, error) {
	e := ends{}
	for _, j := range links() {
		a, b, err := socketPair()
		if err != nil {
			e.close()
			return nil, err
		}
		e[j[0]], e[j[1]] = append(e[j[0]], a), append(e[j[1]], b)
	}
	return e, nil
}

func socketPair() (a, b *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("join processes: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link"), nil
}

// launch starts this program once more, in a role. It does nothing until it is told.
func (s *supervisor) launch(r role, e ends) (_ *child, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start the %s: %w", r, err)
		}
	}()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	files := append([]*os.File{theirs}, e[r]...)
	c := &child{role: r, ended: make(chan struct{})}
	if r == front || r == tracer {
		empty, err := emptyDirectory()
		if err != nil { // the role cannot change to what is no directory, and says so
			if empty, err = os.Open(os.DevNull); err != nil {
				return nil, err
			}
		}
		defer empty.Close()
		files = append(files, empty)
	}
	if r == front || r == keeper {
		mine, its, err := socketPair()
		if err != nil {
			return nil, err
		}
		defer its.Close()
		c.passes, files = mine, append(files, its)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	cmd := &exec.Cmd{Path: self, Args: []string{"stopd", string(r)}, Stdin: null, Stdout: null, Stderr: os.Stderr, ExtraFiles: files,
		Env: append(inheritable(), roleVariable+"="+string(r))}
	if err := startRestricted(cmd, r, s.cfg); err != nil {
		return nil, err
	}
	c.process = cmd.Process
	go func() {
		cmd.Wait()
		close(c.ended)
	}()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		c.process.Kill()
		return nil, err
	}
	c.control = newLink(conn, s.said(r))
	return c, nil
}

// keepDescriptors keeps what this process was started with, be it what a service manager passed, from those that it starts: each is
// given its own.
func keepDescriptors() error {
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// inheritable is what of the environment a role may need.
func inheritable() (env []string) {
	for _, name := range []string{"PATH", "GORACE", "GOCOVERDIR", "GOTRACEBACK", "GODEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// emptyDirectory is a directory that nobody can put anything into: it is removed already.
func emptyDirectory() (*os.File, error) {
	dir, err := os.MkdirTemp("", "stopd-")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err == nil {
		err = f.Chmod(0o555) // for who is not its owner any more as he goes there
	}
	return f, errors.Join(err, os.Remove(dir))
}

// fileOf is the descriptor of a listener.
func fileOf(l net.Listener) (*os.File, error) {
	f, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", l)
	}
	return f.File()
}

// sendListener passes a listener to who has the other end of a socket pair.
func sendListener(to *os.File, l net.Listener) error {
	f, err := fileOf(l)
	if err != nil {
		return fmt.Errorf("pass listener: %w", err)
	}
	defer f.Close()
	if err := unix.Sendmsg(int(to.Fd()), []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		return fmt.Errorf("pass listener: %w", err)
	}
	return nil
}

// receiveListener is the listener that sendListener passes; the error is io.EOF where its sender is gone.
func receiveListener(from *os.File) (net.Listener, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(from.Fd()), make([]byte, 1), oob, 0)
	if err != nil {
		return nil, fmt.Errorf("receive listener: %w", err)
	}
	if n == 0 {
		return nil, fmt.Errorf("receive listener: %w", io.EOF)
	}
	ms, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(ms) != 1 {
		return nil, fmt.Errorf("receive listener: %d messages, %v", len(ms), err)
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive listener: %d descriptors, %v", len(fds), err)
	}
	unix.CloseOnExec(fds[0]) // who receives listeners executes nothing
	f := os.NewFile(uintptr(fds[0]), "listener")
	defer f.Close()
	return net.FileListener(f)
}
