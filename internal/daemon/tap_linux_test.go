package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tapName is a socket in the working directory of a daemon. Where it is, a process of the daemon that is this test
// program hands over its links at its start, and goes on with others that have the tap in between.
const tapName = "tap"

// A passing is one message between two processes, on its way.
type passing struct {
	from, to role // who calls whom
	call     call
	answer   bool   // it is the answer to that call
	body     []byte // of the message
	asked    []byte // of the call; the body where it is no answer
}

// A tap sees all that the processes of a daemon say to each other, and holds it up as long as it looks.
type tap struct {
	listener *net.UnixListener
	mu       sync.Mutex
	see      func(p passing, pass func()) // pass lets it go on; nil is not to look
	pumps    sync.WaitGroup
}

// listenTap opens a tap in the directory that is a daemon's working directory.
func listenTap(t *testing.T, dir string) *tap {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/" + tapName, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{listener: l}
	p.pumps.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			p.pumps.Go(func() {
				defer c.Close()
				if err := p.serve(c); err != nil && !errors.Is(err, io.EOF) { // it was killed before
					t.Error("tap:", err)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); p.pumps.Wait() })
	return p
}

// tapped are the links that are tapped at a role, which is one end of each: the descriptor of each, and who else is joined.
func tapped(r role) (fds []int, others []role) {
	fd := firstJoint
	for _, l := range links() {
		if l[0] == r {
			fds, others = append(fds, fd), append(others, l[1])
		}
		if l[0] == r || l[1] == r {
			fd++
		}
	}
	return fds, others
}

// beTapped is what a process of the daemon does before anything else.
func beTapped(r role) error {
	fds, _ := tapped(r)
	if len(fds) == 0 {
		return nil
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: tapName, Net: "unix"})
	if err != nil {
		return nil // there is none
	}
	defer c.Close()
	if _, _, err := c.WriteMsgUnix([]byte(r), unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	got, _, err := receiveDescriptors(c)
	if err != nil || len(got) != len(fds) {
		return fmt.Errorf("%d links, %w", len(got), err)
	}
	for i, fd := range got {
		if err := unix.Dup3(fd, fds[i], 0); err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

func receiveDescriptors(c *net.UnixConn) (fds []int, text string, err error) {
	b, oob := make([]byte, 64), make([]byte, 256)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, "", err
	}
	ms, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(ms) != 1 {
		return nil, "", fmt.Errorf("%d control messages, %w", len(ms), err)
	}
	fds, err = unix.ParseUnixRights(&ms[0])
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, string(b[:n]), err
}

// serve takes over the links of one process.
func (p *tap) serve(c *net.UnixConn) error {
	fds, name, err := receiveDescriptors(c)
	if err != nil {
		return err
	}
	from := role(name)
	_, others := tapped(from)
	if len(others) != len(fds) {
		return fmt.Errorf("%d links of the %s", len(fds), from)
	}
	var back []*os.File
	var given []int
	for i, fd := range fds {
		theirs, err := connOf(os.NewFile(uintptr(fd), "link"))
		if err != nil {
			return err
		}
		a, b, err := socketPair()
		if err != nil {
			return err
		}
		ours, err := connOf(a)
		if err != nil {
			return err
		}
		back, given = append(back, b), append(given, int(b.Fd()))
		p.join(from, others[i], ours, theirs)
	}
	_, _, err = c.WriteMsgUnix([]byte{0}, unix.UnixRights(given...), nil)
	for _, f := range back {
		f.Close()
	}
	return err
}

func connOf(f *os.File) (net.Conn, error) {
	defer f.Close()
	return net.FileConn(f)
}

// join passes on what two processes say, until one has ended.
func (p *tap) join(a, b role, atA, atB net.Conn) {
	var mu sync.Mutex
	under := map[role]map[uint64]passing{a: {}, b: {}} // calls that are not answered, by who called
	said := func(from, to role) func(call, uint64, []byte) passing {
		return func(c call, n uint64, body []byte) passing {
			mu.Lock()
			defer mu.Unlock()
			if c > callFailure {
				x := passing{from: from, to: to, call: c, body: body, asked: body}
				under[from][n] = x
				return x
			}
			x := under[to][n]
			delete(under[to], n)
			x.answer, x.body = true, body
			return x
		}
	}
	p.pumps.Go(func() {
		defer atB.Close()
		p.pump(atA, atB, said(a, b))
	})
	p.pumps.Go(func() {
		defer atA.Close()
		p.pump(atB, atA, said(b, a))
	})
}

func (p *tap) pump(from io.Reader, to io.Writer, what func(call, uint64, []byte) passing) error {
	for {
		c, n, size, err := readHeader(from)
		if err != nil {
			return err
		}
		message := make([]byte, linkHeader+size)
		binary.BigEndian.PutUint32(message, uint32(size))
		message[4] = byte(c)
		binary.BigEndian.PutUint64(message[8:], n)
		if _, err := io.ReadFull(from, message[linkHeader:]); err != nil {
			return err
		}
		passed := false
		pass := func() {
			if !passed {
				_, err = to.Write(message)
			}
			passed = true
		}
		x := what(c, n, slices.Clip(message[linkHeader:]))
		p.mu.Lock()
		see := p.see
		p.mu.Unlock()
		if see != nil {
			see(x, pass)
		}
		if pass(); err != nil {
			return errors.Join(errLink, err)
		}
	}
}

// watch has every message looked at from now on.
func (p *tap) watch(see func(passing, func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.see = see
}
