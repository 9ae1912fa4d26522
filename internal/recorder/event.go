package recorder

import "net/netip"

// An ID is a process for as long as the host is up. PID 0 is none, or one that is not known.
type ID struct {
	PID   uint32
	Start uint64
}

// A Kind is what happened.
type Kind uint8

// Kinds of events, and what of an [Event] they have beside the time.
const (
	// Forked: Process, but for Exited.
	Forked Kind = iota + 1
	// Executed: Process's ID, names and ids, as they are from now on.
	Executed
	// Exited: the same, as they were at its end, but for Exe.
	Exited
	// Connecting: Cookie, and the Process's ID whose call it is.
	Connecting
	// Established: the Connection without holders. Direction is Outbound or Inbound.
	Established
	// Touched: Cookie, and the Process's ID that has used the connection or ended it; Closed where it was over then.
	Touched
	// Closed: Cookie, octets, UID, and the Process's ID that did it; none where the other end did.
	Closed
	// ProcessMet and ConnectionMet say that one is there: what Forked, or Established and Touched, would have said.
	// They are of a sweep; see [History.Sweep].
	ProcessMet
	ConnectionMet
	// Held: Process's ID, and the Joints that it has at the time, or of More some.
	Held
)

// An Event is what happened to a process or a connection.
type Event struct {
	Kind       Kind
	At         uint64
	Process    Process
	Connection Connection
	Joints     []Joint // in an event they are only read before the next
	More       bool
}

// A Process is what is remembered of one.
type Process struct {
	ID
	// Parent is who made it; of one that was only seen, who is its parent since.
	Parent ID
	// Exited is 0 where it is alive.
	Exited uint64
	// Name has at most 15 octets. Exe is the path of its program as it was called, of at most MaxPath octets; nil where it is not
	// known. In an event it is only read before the next.
	Name, Exe                                   []byte
	RUID, EUID, LoginUID, AuditSession, Session uint32
	// Met says that the process was there already when it was met, so that its parent may be another than who made it.
	Met bool
	// Unsure says that its end was not noticed: it ended before Exited.
	Unsure bool
}

// A Direction says which end opened a connection.
type Direction uint8

// Directions.
const (
	Unknown Direction = iota
	Outbound
	Inbound
)

// A Connection is what is remembered of one TCP connection.
type Connection struct {
	Cookie        uint64
	Local, Remote netip.AddrPort // IPv4 as such, without zones
	NetNS         uint32
	Direction     Direction
	// UID is of who called connect(2); of one that was accepted, of who called accept(2), until it is closed of who listened.
	UID uint32
	// Opened is when it was established, or met; Closed is 0 while it is open.
	Opened, Closed uint64
	Sent, Received uint64
	// Holders are the first process that is known to have held it, and the last that is another.
	Holders []ID
	// More says that others held it as well.
	More bool
	// Met says that it was there already when it was met: it is older than Opened, and others may have held it.
	Met bool
	// Unsure says that its end was not noticed: it closed before Closed, and its octets are not known.
	Unsure bool
}
