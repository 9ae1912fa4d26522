package trace

import (
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
)

// Roles of a process (thesis section 4.2.2: PRIMARY and SECONDARY).
const (
	Primary  = "primary"  // it holds the asked socket, or an ancestor of one that does
	Resolved = "resolved" // found through a channel
)

// How a process was found.
const (
	ByOwner          = "owner"
	ByParent         = "parent"
	ByChannel        = "channel"
	ByRecordedParent = "recorded-parent"
)

// Reasons why a host is a candidate for the previous host.
const (
	ReasonInbound          = "inbound"
	ReasonJoinedOutbound   = "joined-outbound"
	ReasonSSHConnection    = "ssh-connection"
	ReasonUtmp             = "utmp"
	ReasonAuditSession     = "audit-session" // the login session that the system keeps a process in
	ReasonUnknownDirection = "unknown-direction"
	ReasonRecorded         = "recorded" // a connection that is closed, and remembered
	// ReasonNAT is added where the host itself translates the addresses: the candidate has them as it sees them.
	ReasonNAT = "nat"
)

// A Result is what a trace found.
type Result struct {
	// Moved is true where an owner did not hold the asked socket any more when it was read: another look may find more.
	Moved     bool
	Owners    []int
	Processes []Process
	Channels  []Channel
	Previous  []Previous
	Users     []User
	Gaps      []host.Gap
	// Crowd are connections that are no candidates since too many hosts have one.
	Crowd []Crowded
}

// A Process is a process of the closure.
type Process struct {
	Index int    `json:"index"` // from 1, in the order of finding
	Role  string `json:"role"`
	Via   Via    `json:"via"`
	host.Process
}

// A Via says how a process was found: from the process with that index, and through which channel.
type Via struct {
	From    *int   `json:"from"`
	By      string `json:"by"`
	Channel *int   `json:"channel"`
}

// A Channel joins processes of one host.
type Channel struct {
	ID   int       `json:"id"` // from 1, in the order of finding
	Kind host.Kind `json:"kind"`
	Ends []End     `json:"ends"`
	// Complete is false where an end has no holder that could be found.
	Complete bool `json:"complete"`
	// Followed is false where the channel is only listed; Why says why.
	Followed bool   `json:"followed"`
	Why      string `json:"why"`
	// Remembered is true of a channel that was, and is not seen now; see joined.
	Remembered bool `json:"remembered"`

	decided bool
	// keeps is true for what keeps data rather than pass it on.
	keeps bool
}

// An End is one process's hold on a channel.
type End struct {
	PID  int       `json:"pid"`
	FDs  []int     `json:"fds"` // none where the end is remembered
	Mode host.Mode `json:"mode"`
	// object is what this process holds of the channel.
	object host.Object
	// start is the process's [host.ID.Start] where the end is remembered; else it is the living one with the pid.
	start uint64
}

// A Previous is a candidate for the previous host.
type Previous struct {
	// Remote and Local are as this host sees the connection. A host known only by a login has no port.
	Remote    netip.AddrPort `json:"remote"`
	Local     netip.AddrPort `json:"local"`
	PID       int            `json:"pid"`
	Direction host.Direction `json:"direction"`
	Reasons   []string       `json:"reasons"`
	// Corroborated is false where only the user's own word speaks for it.
	Corroborated bool `json:"corroborated"`
	// NetNS is the network namespace that the connection leaves the host by, 0 where the system has none or it
	// is not known.
	NetNS uint64 `json:"netns" report:"null"`
	// Bytes are those of its connection; zero where the system does not count.
	Bytes host.Bytes `json:"bytes" report:"null"`
}

// A User is somebody who owns a process of the report.
type User struct {
	Name   string      `json:"name"`
	UID    uint32      `json:"uid"`
	Logins []UserLogin `json:"logins"`
}

// A UserLogin is what the system says of a user's login: an entry of utmp or wtmp, or a session of logind.
type UserLogin struct {
	Line    string     `json:"line"`
	Host    string     `json:"host"`
	Address netip.Addr `json:"address"`
	Time    time.Time  `json:"time"`
	// Ended is zero while the user is logged in.
	Ended time.Time `json:"ended"`
}
