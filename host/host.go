package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ErrNotFound says that the system has no such socket or process (any more). Other errors say that it
// could not tell.
var ErrNotFound = errors.New("not found")

// A HiddenError says that a flow is none of the daemon's own network namespace, and that connections of others
// with the same remote end may be it: something translates addresses and does not tell how. None is chosen.
type HiddenError struct {
	Seen []Socket
}

func (e *HiddenError) Error() string {
	var b strings.Builder
	b.WriteString("not known to sockets and connection tracking of this network namespace; others have connections with the same remote end:")
	for i, s := range e.Seen {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s -> %s of uid %d in namespace %d", s.Local, s.Remote, s.UID, s.NetNS)
	}
	return b.String()
}

// A ForwardedError says that a flow is no connection of the host's own: it passes it on for another machine, under other
// addresses (NAT). Seen are the connections that had these ends, the latest first: more than one where ports were used
// again. None is empty.
type ForwardedError struct {
	Seen []Forwarded
	// Own is a connection of the host's own, or of a container's, that had these ends as well, and is closed; nil where there was none.
	Own *Socket
	// Live is true where the first of Seen is there now, and packets went both ways.
	Live bool
	// Doubt says why the first of Seen may not be the only one, or no connection at all; empty where nothing speaks for that.
	Doubt string
}

func (e *ForwardedError) Error() string {
	var b strings.Builder
	b.WriteString("no process of this host has it; this host passes it on:")
	for i, f := range e.Seen {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, " %s", f)
	}
	if e.Own != nil {
		b.WriteString("; the host had it itself")
		if !e.Own.Closed.IsZero() {
			b.WriteString(" until " + e.Own.Closed.UTC().Format(time.RFC3339Nano))
		}
	}
	return b.String()
}

// A Forwarded is a connection that a host passes on for another machine, as connection tracking has it.
type Forwarded struct {
	Original   Ends `json:"original"`   // as that machine has them, which is the local one
	Translated Ends `json:"translated"` // as they were asked about
	// Direction is Outbound where that machine opened it.
	Direction Direction `json:"direction"`
	State     string    `json:"state"`
	// Opened is when it was first seen, and Removed when the host ceased to track it, which may be minutes after its end.
	// Zero is not known, and not yet.
	Opened  time.Time `json:"opened"`
	Removed time.Time `json:"removed"`
	// NetNS is the network namespace by whose link that machine is reached.
	NetNS uint64 `json:"netns" report:"null"`
}

func (f Forwarded) String() string {
	s := fmt.Sprintf("it comes from %s, as a connection with %s", f.Original.Local, f.Original.Remote)
	if f.Direction == Inbound {
		s = fmt.Sprintf("it goes to %s, as a connection from %s", f.Original.Local, f.Original.Remote)
	}
	if !f.Opened.IsZero() {
		s += ", since " + f.Opened.UTC().Format(time.RFC3339Nano)
	}
	if !f.Removed.IsZero() {
		s += ", until " + f.Removed.UTC().Format(time.RFC3339Nano)
	}
	return s
}

// A Host answers questions about the machine it runs on, or ran on.
//
// All methods may be called from several goroutines at once.
type Host interface {
	// Facts returns what identifies the host, and a gap for each part that could not be read.
	Facts(ctx context.Context) (Facts, []Gap)

	// Find returns the socket of a flow, at a cost that does not grow with the number of sockets. Both
	// ends are compared; a listener is never an answer. A connection that is closed is, where the host remembers it and who held it. An unspecified local address means any address of
	// this host. Where the host translates addresses, they are as others see them, and the socket has its own.
	// The error is ErrNotFound where no such socket exists, a [HiddenError] where that cannot be told, and a
	// [ForwardedError] where it is another machine's.
	Find(ctx context.Context, f Flow) (Socket, error)

	// Snapshot begins one look at the host. What a snapshot has read once it does not read again, so that
	// one trace sees each thing in one state.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// A Snapshot is one lazy look at a host: it reads what it is asked for. It is used by one goroutine.
type Snapshot interface {
	// Process returns a process with its descriptors. The error is ErrNotFound where it has ended.
	Process(ctx context.Context, pid int) (Process, error)

	// Holders returns the processes that hold descriptors of an object, in the system's own order; none is an answer.
	Holders(ctx context.Context, o Object) ([]Holder, error)

	// Peers returns the objects at the other end of an object: for a pipe, where both ends are one object,
	// that object itself; for a socket that others are connected to, all of theirs.
	Peers(ctx context.Context, o Object) ([]Object, error)

	// Logins returns who the system says is logged in, or was since it started: utmp, wtmp, and the sessions of
	// whatever manages logins.
	Logins(ctx context.Context) ([]Login, error)

	// Audited returns the processes of an audit session, by ascending pid.
	Audited(ctx context.Context, session uint32) ([]int, error)

	// Accepted returns what the given processes logged as they let somebody in. With a Start of 0 a process may
	// have ended.
	Accepted(ctx context.Context, ids []ID) ([]Login, error)

	// Remembered returns what is remembered of a process, living or ended. The error is ErrNotFound where nothing is.
	Remembered(ctx context.Context, id ID) (Remembered, error)

	// Held returns the TCP connections that a process is known to have held and that may have been open at some time between two, both
	// included, of which a zero one is no bound: those that this host opened, or all others. more says that there may be others. The error is
	// ErrNotFound where nothing is remembered.
	Held(ctx context.Context, id ID, from, to time.Time, outbound bool) (held []Socket, more bool, err error)

	// Gaps returns what could not be read so far, beside the errors that the other methods returned.
	Gaps() []Gap

	// Close ends the look and frees what it holds.
	Close() error
}

// An ID identifies a process for as long as the host is up. A pid alone does not: pids are used again.
type ID struct {
	PID int `json:"pid"`
	// Start is when the process started, in the system's own unit; it only serves to be compared.
	Start uint64 `json:"start_ticks,omitzero"`
}

// An Object is the system's own identity of one end of a channel (a kernel address, an inode), as text.
// It is comparable within one snapshot. Empty is unknown.
type Object string

// A Flow is the addresses of a connection as this host sees it.
type Flow struct {
	Protocol Kind // TCP, UDP or Raw
	Local    netip.AddrPort
	Remote   netip.AddrPort
}

// Remembered is what a host has seen happen to a process.
type Remembered struct {
	// Process is the process as it was when it ended, or when it last became another program.
	Process Process `json:"process"`
	// Parent made the process, whoever has adopted it since. It is zero where that is not known.
	Parent ID `json:"parent,omitzero"`
	// Held are TCP connections that the process is known to have held, open or closed: of those that this host opened and of the others the
	// last that it was first known to hold. See [Snapshot.Held].
	Held []Socket `json:"held,omitzero"`
	// Gaps are what may be missing in that.
	Gaps []Gap `json:"gaps,omitzero"`
	// Joints are what the process is known to have had by which it can be joined to others, open or closed.
	Joints []Joint `json:"joints,omitzero"`
	// Cut says that it held connections that are not in Held.
	Cut bool `json:"cut,omitzero"`
}

// A Joint is a descriptor that is remembered, without numbers, and who had its other end while the process lived.
type Joint struct {
	Descriptor
	// With may be living or ended. What it was given only to hand it on, a process did not have.
	With []Holder `json:"with,omitzero"`
}

// A Holder is a process that holds an object open.
type Holder struct {
	ID
	FDs  []int `json:"fds"`
	Mode Mode  `json:"mode,omitzero"`
}

// A Gap is something that a report should have and could not be read. PID is 0 where no single process is
// concerned.
type Gap struct {
	PID  int    `json:"pid,omitzero" report:"null"`
	What string `json:"what"`
	Why  string `json:"why"`
}
