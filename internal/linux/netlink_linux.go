package linux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A netlinks is the netlink sockets of one protocol in one network namespace. Each question has a socket to
// itself; those that are free are kept.
type netlinks struct {
	protocol int
	nsfd     int // descriptor of the namespace; 0 is our own
	mu       sync.Mutex
	free     []*netlink.Conn
}

// maxFree is how many idle netlink sockets are kept: as many as questions usually run at once.
const maxFree = 8

func (n *netlinks) take() (*netlink.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := len(n.free) - 1; last >= 0 {
		c := n.free[last]
		n.free = n.free[:last]
		return c, nil
	}
	c, err := netlink.Dial(n.protocol, &netlink.Config{NetNS: n.nsfd})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return c, nil
}

// give takes a socket back: one that is empty is kept, and one on which answers may still be on their way is closed.
func (n *netlinks) give(c *netlink.Conn, empty bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if empty && len(n.free) < maxFree {
		n.free = append(n.free, c)
		return
	}
	c.Close()
}

func (n *netlinks) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.free {
		c.Close()
	}
	n.free = nil
}

// answerTimeout bounds the wait for an answer where the context sets no deadline. The kernel answers at once.
const answerTimeout = 10 * time.Second

func (n *netlinks) begin(ctx context.Context) (*netlink.Conn, error) {
	c, err := n.take()
	if err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(answerTimeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	return c, nil
}

// exchange sends one request and returns what is answered. An error that the kernel answered is a unix.Errno
// within.
func (n *netlinks) exchange(ctx context.Context, typ netlink.HeaderType, flags netlink.HeaderFlags, payload []byte) ([]netlink.Message, error) {
	c, err := n.begin(ctx)
	if err != nil {
		return nil, err
	}
	ms, err := c.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: payload})
	n.give(c, err == nil || flags&netlink.Dump == 0 && whole(err))
	return ms, err
}

// whole reports whether an error is all of an answer, so that the socket can be used again.
func whole(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES)
}

// one sends a request that has one answer and returns its payload. Connection tracking marks even that as a
// part of several, of which the last never comes (net/netfilter/nf_conntrack_netlink.c), so that exchange would
// wait for it.
func (n *netlinks) one(ctx context.Context, typ netlink.HeaderType, payload []byte) ([]byte, error) {
	c, err := n.begin(ctx)
	if err != nil {
		return nil, err
	}
	b, err := ask(c, netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request}, Data: payload})
	n.give(c, err == nil || whole(err))
	return b, err
}

func ask(c *netlink.Conn, m netlink.Message) ([]byte, error) {
	sent, err := c.Send(m)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	var size int
	var received error
	err = raw.Read(func(fd uintptr) bool {
		size, _, received = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return received != unix.EAGAIN
	})
	if err == nil {
		err = received
	}
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return parseAnswer(buf[:size], sent.Header.Sequence)
}
