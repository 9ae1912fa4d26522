package host

import (
	"net/netip"
	"time"
)

// A Kind is the kind of a descriptor.
type Kind string

// Kinds of descriptors. A system that has others uses its own name for them.
const (
	TCP  Kind = "tcp"
	UDP  Kind = "udp"
	Raw  Kind = "raw"
	Unix Kind = "unix"
	Pipe Kind = "pipe"
	FIFO Kind = "fifo"
	PTY  Kind = "pty"
	TTY  Kind = "tty"
	File Kind = "file"
	// Kinds of memory and messages that processes share.
	SHM    Kind = "shm" // System V and POSIX shared memory, and what is shared by inheritance
	Memfd  Kind = "memfd"
	MQueue Kind = "mqueue" // POSIX message queue
	Msg    Kind = "msg"    // System V message queue
	// Kinds of signals, which go along with memory, and of what gives a hold on another process.
	EventFD Kind = "eventfd"
	Sem     Kind = "sem"      // System V semaphores; POSIX ones are memory
	IOUring Kind = "io_uring" // an instance, shared by inheritance or sent
	FUSE    Kind = "fuse"     // a file system that a process serves
	PTrace  Kind = "ptrace"   // the process is traced: whoever traces it writes, it reads
	// OtherSocket is neither of the internet nor a UNIX one, or could not be looked at.
	OtherSocket Kind = "socket"
)

// Keeps reports whether what is written through descriptors of this kind stays there for whoever looks:
// files and memory, and what goes along with them: signals, instances of io_uring, served file systems. They
// are made to keep data, not to pass it on.
func (k Kind) Keeps() bool {
	switch k {
	case File, SHM, Memfd, EventFD, Sem, IOUring, FUSE:
		return true
	}
	return false
}

// Inet reports whether descriptors of this kind have internet addresses.
func (k Kind) Inet() bool { return k == TCP || k == UDP || k == Raw }

// A Mode says which way data may pass through a descriptor.
type Mode string

// Modes. Empty is unknown, and counts as both.
const (
	Read      Mode = "r"
	Write     Mode = "w"
	ReadWrite Mode = "rw"
)

// Reads reports whether the holder may read.
func (m Mode) Reads() bool { return m != Write }

// Writes reports whether the holder may write.
func (m Mode) Writes() bool { return m != Read }

// With returns what a holder of descriptors in both modes may do.
func (m Mode) With(n Mode) Mode {
	if m == n {
		return m
	}
	return ReadWrite
}

// A Direction says which end opened a connection.
type Direction string

// Directions.
const (
	Outbound         Direction = "outbound"
	Inbound          Direction = "inbound"
	UnknownDirection Direction = "unknown"
)

// A Source says what told a direction.
type Source string

// Sources of a direction. Counters are exact: see the rule in internal/linux. Kernel is a flag that the
// system keeps. A listener on the local port is a hint. Connected UDP and raw sockets are outbound by
// their address alone (thesis section 4.5.2).
const (
	FromCounters  Source = "counters"
	FromRecorder  Source = "recorder"
	FromKernel    Source = "kernel"
	FromConntrack Source = "conntrack"
	FromListener  Source = "listener"
	FromAddress   Source = "address"
)

// Sides of a pseudo terminal.
const (
	Master = "master"
	Slave  = "slave"
)

// A Socket is an internet socket.
type Socket struct {
	Protocol Kind           `json:"protocol"`
	Local    netip.AddrPort `json:"local"`
	Remote   netip.AddrPort `json:"remote,omitzero"`
	// State is the TCP state in RFC 9293's words with hyphens; empty for
	// datagram sockets that are not connected.
	State           string    `json:"state,omitzero"`
	Direction       Direction `json:"direction,omitzero"`
	DirectionSource Source    `json:"direction_source,omitzero"`
	// UID owns the socket; without meaning where Inode is 0.
	UID uint32 `json:"uid"`
	// Inode 0 means that no process holds the socket (TIME-WAIT, orphaned).
	Inode  uint64 `json:"inode,omitzero"`
	Object Object `json:"object,omitzero"`
	Cookie uint64 `json:"cookie,omitzero"`
	// NetNS identifies the network namespace, 0 where the system has none.
	NetNS uint64 `json:"netns,omitzero"`
	// NAT is zero where the ends that were asked about are the socket's own.
	NAT NAT `json:"nat,omitzero"`
	// Bytes is zero where the system does not count.
	Bytes Bytes `json:"bytes,omitzero"`
	// Opened and Closed are zero where they are not remembered, and Closed while the connection is open.
	Opened time.Time `json:"opened,omitzero"`
	Closed time.Time `json:"closed,omitzero"`
	// Since is when it was met, of one whose Opened is not remembered: it was open then. Until is of one whose end was not noticed: it was
	// open then, and at Closed no more.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Peer is the Object of the other end, where that is this host's and remembered.
	Peer Object `json:"peer,omitzero"`
	// Recalled says that nobody holds the socket any more: what is known of it is remembered. Its Object is then one that
	// [Snapshot.Holders] knows, and no process has a descriptor of it.
	Recalled bool `json:"recalled,omitzero"`
	// Unsure says of one that is recalled that a later one of the same ends may be missing: it may be another's.
	Unsure bool `json:"unsure,omitzero"`
}

// Within reports whether a connection was open at some time between two, both included, of which a zero one is no bound: whether that may be, and
// whether it is sure.
func (s Socket) Within(from, to time.Time) (maybe, sure bool) {
	began, ended := s.Opened, s.Closed
	if began.IsZero() {
		began = s.Since
	}
	if !s.Until.IsZero() {
		ended = s.Until
	}
	meets := func(began, ended time.Time) bool {
		return (to.IsZero() || !began.After(to)) && (ended.IsZero() || !ended.Before(from))
	}
	return meets(s.Opened, s.Closed), !began.IsZero() && meets(began, ended)
}

// Bytes are the octets of a TCP connection, as one end counts them. Systems may count a SYN and a FIN as one each.
type Bytes struct {
	Sent         uint64 `json:"sent"`         // at least once
	Acknowledged uint64 `json:"acknowledged"` // of those, by the other end
	Received     uint64 `json:"received"`     // in order
}

// Last is when data were last sent by a TCP connection, and came by it; where none were, when it was established.
type Last struct {
	Sent     time.Time `json:"sent"`
	Received time.Time `json:"received"`
}

// Ends are the two ends of a connection.
type Ends struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
}

// A NAT is how the host itself translates the addresses of a connection.
type NAT struct {
	Original   Ends `json:"original"`   // as the socket has them
	Translated Ends `json:"translated"` // as they are outside of the host
}

// Outside returns the ends of a socket as they are outside of the host.
func (s Socket) Outside() Ends {
	if s.NAT != (NAT{}) {
		return s.NAT.Translated
	}
	return Ends{Local: s.Local, Remote: s.Remote}
}

// An Outer is a connection as it is where it leaves the host.
type Outer struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	// NetNS is the network namespace whose link it leaves by.
	NetNS uint64 `json:"netns" report:"null"`
}

// Flow returns the socket's addresses.
func (s Socket) Flow() Flow { return Flow{Protocol: s.Protocol, Local: s.Local, Remote: s.Remote} }

// A Descriptor is what one or several descriptor numbers of one process refer to, in one mode.
type Descriptor struct {
	FDs   []int  `json:"fds"`
	Kind  Kind   `json:"kind"`
	Mode  Mode   `json:"mode,omitzero"`
	Inode uint64 `json:"inode,omitzero" report:"null"`
	// Object and Peer are this end and the other. Where both ends are one object (a pipe on Linux), they
	// are equal.
	Object Object `json:"object,omitzero"`
	Peer   Object `json:"peer,omitzero"`

	Local           netip.AddrPort `json:"local,omitzero" kinds:"tcp udp raw"`
	Remote          netip.AddrPort `json:"remote,omitzero" kinds:"tcp udp raw"`
	State           string         `json:"state,omitzero" kinds:"tcp udp raw"`
	Direction       Direction      `json:"direction,omitzero" kinds:"tcp udp raw"`
	DirectionSource Source         `json:"direction_source,omitzero" kinds:"tcp udp raw"`
	NetNS           uint64         `json:"netns,omitzero" report:"null" kinds:"tcp udp raw"`

	Path     string `json:"path,omitzero" kinds:"unix pipe fifo pty tty file shm memfd mqueue"`
	PeerPath string `json:"peer_path,omitzero" kinds:"unix"`
	Type     string `json:"type,omitzero" kinds:"unix"`

	Side   string `json:"side,omitzero" kinds:"pty"`
	Number *int   `json:"number,omitzero" kinds:"pty"`

	// Name is what the system calls a descriptor of a kind without keys of its own.
	Name string `json:"name,omitzero" kinds:"*"`

	// Outer is nil where the connection does not leave the host, where it does so as it is from the daemon's
	// own network namespace, and where it is not known.
	Outer *Outer `json:"outer,omitzero" kinds:"tcp udp raw"`
	// Bytes is zero where the system does not count.
	Bytes Bytes `json:"bytes,omitzero" report:"-"`
	// Last is zero where the system does not tell, and of what is no TCP connection.
	Last Last `json:"last,omitzero" report:"-"`
	// Opened is when the connection was established; zero where that is not remembered. Since is when it was met then, and was open.
	Opened time.Time `json:"opened,omitzero" report:"-"`
	Since  time.Time `json:"since,omitzero" report:"-"`
	// Within is true where the connection ends in this host, and its other end is no process's.
	Within bool `json:"within,omitzero" report:"-"`
	// Named is true where a UNIX socket has a name, and it is not known which.
	Named bool `json:"named,omitzero" report:"-"`
}

// Outside returns a connection as it is outside of the host.
func (d Descriptor) Outside() Outer {
	if d.Outer != nil {
		return *d.Outer
	}
	return Outer{Local: d.Local, Remote: d.Remote, NetNS: d.NetNS}
}

// Listening reports whether the descriptor is a socket that waits for connections.
func (d Descriptor) Listening() bool { return d.State == "LISTEN" }

// A Process is one process. Unknown values are zero or nil; what could have been known is a [Gap].
type Process struct {
	PID  int  `json:"pid"`
	PPID *int `json:"ppid,omitzero"`
	// StartTicks is the Start of the process's [ID].
	StartTicks uint64     `json:"start_ticks,omitzero" report:"-"`
	Start      time.Time  `json:"start,omitzero"`
	Exited     *time.Time `json:"exited,omitzero"`
	// Name is the short name that the system keeps; the process may have chosen it. It is data: it may
	// hold blanks, parentheses and newlines.
	Name       string `json:"name,omitzero"`
	Exe        string `json:"exe,omitzero"`
	ExeDeleted *bool  `json:"exe_deleted,omitzero"`
	ExeBuildID string `json:"exe_build_id,omitzero"`
	ExeSHA256  string `json:"exe_sha256,omitzero"`

	Args []string `json:"args,omitzero"`
	CWD  string   `json:"cwd,omitzero"`

	RUID  *uint32 `json:"ruid,omitzero"`
	EUID  *uint32 `json:"euid,omitzero"`
	SUID  *uint32 `json:"suid,omitzero"`
	RGID  *uint32 `json:"rgid,omitzero"`
	EGID  *uint32 `json:"egid,omitzero"`
	SGID  *uint32 `json:"sgid,omitzero"`
	RUser string  `json:"ruser,omitzero"`
	EUser string  `json:"euser,omitzero"`

	TTY      string `json:"tty,omitzero"`
	Priority *int   `json:"priority,omitzero"`
	Nice     *int   `json:"nice,omitzero"`
	Session  *int   `json:"session,omitzero"`
	PGRP     *int   `json:"pgrp,omitzero"`

	LoginUID     *uint32 `json:"loginuid,omitzero"`
	AuditSession *uint32 `json:"audit_session,omitzero"`
	Cgroup       string  `json:"cgroup,omitzero"`
	Container    string  `json:"container,omitzero"`
	Job          *Job    `json:"job,omitzero"`
	Login        *Login  `json:"login,omitzero"`

	Descriptors []Descriptor `json:"descriptors,omitzero"`
}

// ID returns what identifies the process.
func (p Process) ID() ID { return ID{PID: p.PID, Start: p.StartTicks} }

// A Job is the batch job that a process belongs to.
type Job struct {
	// ID is the batch system's own name of the job, from where Source says.
	ID string `json:"id,omitzero"`
	// SubmitHost is where the job was submitted. Only the environment tells, and whoever runs the process could
	// have written it.
	SubmitHost string `json:"submit_host,omitzero"`
	// Source is JobCgroup or JobEnvironment.
	Source string `json:"source,omitzero"`
	// ClaimedID is what the environment says where the control group says otherwise.
	ClaimedID string `json:"claimed_id,omitzero"`
}

// Sources of a job's id.
const (
	JobCgroup      = "cgroup"      // the control group that the batch system put the process into
	JobEnvironment = "environment" // its user could have written it
)

// Sources of a login, the weakest first.
const (
	LoginEnvironment = "environment" // the process's own environment: its user could have written it
	LoginUtmp        = "utmp"        // utmp or wtmp
	LoginAudit       = "audit"       // the login session that the system keeps the process in: audit's, or logind's
	LoginSSHD        = "sshd"        // what the program that let the user in logged
)

// LogJournal is the [Login.Log] of a record whose process and user the system itself noted. Other logs hold what
// any user may have sent there.
const LogJournal = "journal"

// A Login is where a user says, or the system says, that somebody came from.
type Login struct {
	Source string `json:"source,omitzero"`
	// Remote is the other end, without a port (0) where only the host is known.
	Remote netip.AddrPort `json:"remote,omitzero"`
	// Local is this host's end, where the source has it.
	Local netip.AddrPort `json:"local,omitzero" report:"-"`
	// User and Host are the source's own words.
	User string    `json:"user,omitzero" report:"-"`
	Host string    `json:"host,omitzero" report:"-"`
	Line string    `json:"line,omitzero"`
	Time time.Time `json:"time,omitzero"`
	// Key is the fingerprint of the key that opened the session, from sshd's own record.
	Key string `json:"key,omitzero"`
	// Log is where a record of sshd was found: [LogJournal] or a file.
	Log string `json:"log,omitzero"`

	// PID is the process that let the user in, as the source has it.
	PID int `json:"pid,omitzero" report:"-"`
	// Ended is when the user left; zero while logged in.
	Ended time.Time `json:"ended,omitzero" report:"-"`
	// Cgroup is the control group that the system keeps all processes of the session in, and Audit the audit session.
	Cgroup string  `json:"cgroup,omitzero" report:"-"`
	Audit  *uint32 `json:"audit,omitzero" report:"-"`
}

// Facts identify a host.
type Facts struct {
	Name     string    `json:"name,omitzero"`
	BootTime time.Time `json:"boot_time,omitzero"`
	BootID   string    `json:"boot_id,omitzero"`
	OS       string    `json:"os,omitzero"`
	Release  string    `json:"release,omitzero"`
	// Kernel is the full version line.
	Kernel    string       `json:"kernel,omitzero"`
	Arch      string       `json:"arch,omitzero"`
	Addresses []netip.Addr `json:"addresses,omitzero"`
	// NetNS is the daemon's own network namespace.
	NetNS uint64 `json:"netns,omitzero" report:"-"`
	Clock *Clock `json:"clock,omitzero"`
}

// A Clock says how far the host's clock may be trusted; without it reports of two hosts cannot be ordered.
type Clock struct {
	Synchronised bool `json:"synchronised"`
	// Offset and Error are in seconds: the last measured offset and the bound that the system estimates.
	Offset float64 `json:"offset"`
	Error  float64 `json:"error"`
}
