//go:build unix

package selftest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The child has its descriptors from this one on: first the accepted connection, the pair by which it says that it is there, and
// the pipe whose end ends it.
const firstFD = 3

// readyTime is how long the child may take until it says so.
const readyTime = time.Minute

// arrange makes everything. Where the system tells of a UNIX socket who connected it, the child connects the pair. On failure nothing
// is left.
func arrange(start Start, childConnects bool) (_ *arrangement, err error) {
	a := &arrangement{}
	a.end = sync.OnceFunc(func() {
		for _, c := range a.held {
			c.Close()
		}
	})
	defer func() {
		if err != nil {
			a.end()
		}
	}()
	var given []*os.File // to the child
	defer func() { closeAll(given) }()
	give := func(c channel, ours, theirs *os.File) {
		a.ours[c], a.theirs[c] = int(ours.Fd()), firstFD+len(given)
		a.held, given = append(a.held, ours), append(given, theirs)
	}
	accepted, err := a.connect()
	if err != nil {
		return nil, fmt.Errorf("make connection: %w", err)
	}
	given = append(given, accepted)
	var listener *net.UnixListener
	if childConnects {
		var far *os.File
		if listener, far, err = listen(); err == nil {
			defer os.RemoveAll(filepath.Dir(listener.Addr().String()))
			defer listener.Close()
			a.theirs[pair], given = firstFD+len(given), append(given, far)
		}
	} else {
		var near, far *os.File
		if near, far, err = socketPair(unix.AF_UNIX, unix.SOCK_STREAM); err == nil {
			give(pair, near, far)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make UNIX sockets: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	give(pipe, write, read)
	for c, open := range map[channel]func() (near, far *os.File, err error){datagrams: connectedDatagrams, terminal: openTerminal} {
		near, far, err := open()
		if a.unmade[c] = err; err == nil {
			give(c, near, far)
		}
	}
	cmd := start()
	cmd.ExtraFiles, cmd.Stderr = given, os.Stderr
	err = cmd.Start()
	closeAll(given) // or this process would hold them too
	given = nil
	if err != nil {
		return nil, fmt.Errorf("start child: %w", err)
	}
	a.child = cmd.Process.Pid
	end := a.end // closes the pipe, which ends the child
	a.end = sync.OnceFunc(func() {
		end()
		cmd.Wait()
	})
	if listener != nil {
		if err := a.accept(listener, write); err != nil {
			return a, fmt.Errorf("connect UNIX sockets: %w", err)
		}
	}
	return a, a.ready()
}

// listen makes a UNIX socket with a path in a directory of its own, and one that is not connected.
func listen() (_ *net.UnixListener, far *os.File, err error) {
	dir, err := os.MkdirTemp("", "stopd-selftest-")
	if err != nil { // beside a bare init there is no /tmp
		dir, err = os.MkdirTemp("/", "stopd-selftest-")
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "socket")})
	if err == nil {
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			unix.CloseOnExec(fd)
			return l, os.NewFile(uintptr(fd), "pair"), nil
		}
		l.Close()
	}
	return nil, nil, errors.Join(err, os.RemoveAll(dir))
}

// accept tells the child, by the pipe to it, where to connect its socket, and takes the other end.
func (a *arrangement) accept(l *net.UnixListener, toChild io.Writer) error {
	if _, err := fmt.Fprintln(toChild, l.Addr()); err != nil {
		return err
	}
	if err := l.SetDeadline(time.Now().Add(readyTime)); err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer c.Close()
	near, err := c.File()
	if err == nil {
		a.ours[pair], a.held = int(near.Fd()), append(a.held, near)
	}
	return err
}

// connect makes a connection on this host, and returns the end that was accepted.
func (a *arrangement) connect() (*os.File, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a.held = append(a.held, l)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	mine, err := client.(*net.TCPConn).File()
	client.Close()
	if err != nil {
		return nil, err
	}
	a.held = append(a.held, mine)
	server, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer server.Close()
	a.client, a.server = client.LocalAddr().(*net.TCPAddr).AddrPort(), client.RemoteAddr().(*net.TCPAddr).AddrPort()
	a.clientFD = int(mine.Fd())
	return server.(*net.TCPConn).File()
}

func socketPair(family, kind int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(family, kind, 0)
	if err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair"), nil
}

// connectedDatagrams makes two datagram sockets that are connected to each other.
func connectedDatagrams() (near, far *os.File, err error) {
	var files [2]*os.File
	var at [2]unix.Sockaddr
	for i := range files {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(files[:]))
		}
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), "datagrams")
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		if err == nil {
			at[i], err = unix.Getsockname(fd)
		}
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(files[:]))
		}
	}
	err = errors.Join(unix.Connect(int(files[0].Fd()), at[1]), unix.Connect(int(files[1].Fd()), at[0]))
	if err != nil {
		return nil, nil, errors.Join(err, closeAll(files[:]))
	}
	return files[0], files[1], nil
}

func closeAll(files []*os.File) (err error) {
	for _, f := range files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// ready waits until the child says that it is there.
func (a *arrangement) ready() error {
	fd := a.ours[pair]
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(readyTime / time.Second)}); err != nil {
		return fmt.Errorf("wait for the child: %w", err)
	}
	for {
		n, err := unix.Read(fd, make([]byte, 1))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return errors.New("wait for the child: it does not say that it is there")
		case err != nil:
			return fmt.Errorf("wait for the child: %w", err)
		case n == 0:
			return errors.New("wait for the child: it has ended")
		}
		return nil
	}
}

// Wait is what the child does: it connects its UNIX socket where it is not, says that it is there, and ends with the pipe to it.
func Wait() error {
	f := os.NewFile(firstFD+2, "pipe")
	if _, err := unix.Getpeername(firstFD + 1); err == unix.ENOTCONN {
		path, err := bufio.NewReader(f).ReadString('\n')
		if err == nil {
			err = unix.Connect(firstFD+1, &unix.SockaddrUnix{Name: strings.TrimSpace(path)})
		}
		if err != nil {
			return fmt.Errorf("connect UNIX socket: %w", err)
		}
	}
	if _, err := unix.Write(firstFD+1, []byte{1}); err != nil {
		return fmt.Errorf("say that the child is there: %w", err)
	}
	_, err := io.Copy(io.Discard, f)
	return err
}
