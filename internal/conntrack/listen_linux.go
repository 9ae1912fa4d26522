package conntrack

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrLost says that the kernel had more events than were taken, and some are lost.
var ErrLost = errors.New("events of connection tracking were lost: they came faster than they were read")

// A Listener is told what happens to the entries of a network namespace. Since Linux 5.19 the kernel tells of those alone that
// were made while somebody listened, unless the sysctl net.netfilter.nf_conntrack_events is 1.
type Listener struct{ conn *netlink.Conn }

// buffer is how many octets of events may wait to be read. The kernel counts what they take in memory, about 800 each.
const buffer = 8 << 20

// Listen listens to events of some kinds in the network namespace with a descriptor, 0 for our own. It takes CAP_NET_ADMIN there.
func Listen(nsfd int, kinds ...Kind) (*Listener, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: nsfd})
	if err != nil {
		return nil, fmt.Errorf("listen to connection tracking: %w", err)
	}
	l := &Listener{c}
	for _, k := range kinds {
		// The groups have the numbers of the kinds: NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY of linux/netfilter/nfnetlink.h.
		if err := c.JoinGroup(uint32(k)); err != nil {
			return nil, errors.Join(fmt.Errorf("listen to connection tracking: %w", err), l.Close())
		}
	}
	if err := l.setBuffer(); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to connection tracking: %w", err), l.Close())
	}
	return l, nil
}

// setBuffer lets more wait than the system allows others (net.core.rmem_max).
func (l *Listener) setBuffer() error {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) })
	return errors.Join(err, set)
}

// Receive waits for events and returns those of TCP connections. The error is ErrLost where some were lost; others follow. After Close it is
// another.
func (l *Listener) Receive() ([]Event, error) {
	ms, err := l.conn.Receive()
	if errors.Is(err, unix.ENOBUFS) {
		return nil, ErrLost
	}
	if err != nil {
		return nil, fmt.Errorf("receive events of connection tracking: %w", err)
	}
	var events []Event
	for _, m := range ms {
		v, ok, err := ParseEvent(uint16(m.Header.Type), uint16(m.Header.Flags), m.Data)
		if err != nil {
			return events, err
		}
		if ok {
			events = append(events, v)
		}
	}
	return events, nil
}

// Close ends listening; a Receive that waits ends with an error.
func (l *Listener) Close() error { return l.conn.Close() }
