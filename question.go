package stop

import (
	"cmp"
	"errors"
	"net/netip"
	"time"
)

// ErrNoUser says that nobody answers for a connection: it does not exist, no process holds it, or the host
// that was asked did not open it.
var ErrNoUser = errors.New("no user")

// ErrNoRoom says that what a token would stand for cannot be kept: the store is full, or who asks, or the user
// that is asked about, has his share of it.
var ErrNoRoom = errors.New("no room for evidence")

// A Question is a request with the addresses that came with it. Where they are of one family or the other,
// an IPv4 address is never mapped into IPv6.
type Question struct {
	Request   `json:"Request"` // a name, for JSON would hide its ports behind the addresses below
	Time      time.Time
	Requester netip.Addr
	// Local is this host's end of the asked connection. Its address is the one that the request came to;
	// if no such connection has it, any address of the host will do.
	Local netip.AddrPort
	// Remote is the other end: For, or where it is absent the requester.
	Remote netip.AddrPort
	// SentTo is the host that the question was sent to, where a gateway's rules have it answered by this one; else not valid. It is that host's
	// end that the question is about.
	SentTo netip.Addr
	// Naming says when the requester may have the user's name.
	Naming Naming
}

// A Naming says when a question is answered with the user's name in place of a token.
type Naming uint8

// When a user's name is told.
const (
	NameNever        Naming = iota
	NameIfListed            // the user's own files list the requester, and do not hide the user
	NameUnlessHidden        // the user's own files do not hide the user
)

// OnBehalf reports whether the requester asks for another host.
func (q Question) OnBehalf() bool { return q.For.IsValid() }

// AskedEnd is the end of the asked connection as whoever asks has it: Local, or that of the host that the question was sent to.
func (q Question) AskedEnd() netip.AddrPort {
	if q.SentTo.IsValid() {
		return netip.AddrPortFrom(q.SentTo, q.Local.Port())
	}
	return q.Local
}

// About returns the question that a request asks which came from one address to another. Ports out of
// range have no place in it and are left 0.
func (r Request) About(from, to netip.Addr, at time.Time) Question {
	q := Question{Request: r, Time: at, Requester: from.Unmap()}
	remote := q.Requester
	if r.For.IsValid() {
		remote = r.For
	}
	var local, far uint16
	if r.PortsValid() {
		local, far = uint16(r.Local), uint16(r.Remote)
	}
	q.Local = netip.AddrPortFrom(to.Unmap(), local)
	q.Remote = netip.AddrPortFrom(remote, far)
	return q
}

// A Connection is what tells the asked connection from others, and its owner from other users. The numbers say no more than
// that: the same is the same, as long as the host that looked runs.
type Connection struct {
	ID    uint64 // never 0
	Owner uint64
}

// A Payer is whom a report is charged to: what one requester, and what about one user, may be kept is bounded.
type Payer struct {
	// Source asked for it.
	Source netip.Addr
	// UID owns the asked connection, where Owned is set.
	UID   uint32
	Owned bool
	// Traceback is set where a trace-back will follow, whose room is kept free.
	Traceback bool
}

// A Finding is what the token of a recursive question leads back to. It is for whoever asks the previous hosts, and
// not for whoever sends the token.
type Finding struct {
	Token     Token
	Type      Type
	SID       uint64
	Requester netip.Addr
	// Connection is the one that was examined; zero where none was, and there is nobody to ask.
	Connection Connection
	// Previous are the candidates for the previous host.
	Previous []Previous
	// Watchable is set where which of them is meant may be told by watching a process.
	Watchable bool
}

// An Examined is what an examined question came to, for whoever sends the reply.
type Examined struct {
	Token Token
	// Name is the user's name as the system has it, where the requester may have it.
	Name string
	// Unread is set where that was to be found out and the user's files were not read: they took too long, or
	// too many were being read.
	Unread bool
}

// A Previous is a candidate for the previous host, as the examined host sees its connection.
type Previous struct {
	Ends
	// Outbound is true where the examined host opened the connection itself.
	Outbound bool
	Reasons  []string
	// Corroborated is false where only the user's own word speaks for it.
	Corroborated bool
	// Elsewhere is true where its connection leaves the host from another network namespace than the daemon's, from where
	// nobody can be asked.
	Elsewhere bool
	// OnBehalf is true where the examined host passes the connection on for that one (NAT): Local is the other end of it, on
	// behalf of which it is asked.
	OnBehalf bool
}

// Ends are the ends of a connection with a previous host, as the asking host sees them. A host known by a
// login alone has no port.
type Ends struct {
	Remote netip.AddrPort `json:"remote"`
	Local  netip.AddrPort `json:"local"`
}

// A Traceback is what became of one candidate for the previous host. It is kept apart from the report,
// whose bytes are fixed before anybody is asked. The JSON names are a contract.
type Traceback struct {
	Previous Ends `json:"previous"`
	// SelectedBy is the reason why it was asked or was not: one of the candidate's own, "flow" or "bound".
	SelectedBy string `json:"selected_by"`
	Asked      bool   `json:"asked"`
	// Request is the line that was sent, and Reply the one that came, escaped by [Printable].
	Request  string    `json:"request"`
	Sent     time.Time `json:"sent"`
	Answered time.Time `json:"answered"` // zero while under way
	Reply    string    `json:"reply"`
	// Kind is that of the answer: "token", "legacy", "error" or "none"; empty while under way.
	Kind  string `json:"kind"`
	Token string `json:"token"`
	Error string `json:"error"`
	// SameAs is the token under which the question was asked, where it was not asked again.
	SameAs string `json:"same_as"`
	// Flow is nil where nobody was watched.
	Flow *Flow `json:"flow"`
}

// A Flow is what is told of a candidate by having watched the process by which it may have come. The JSON names are a contract.
type Flow struct {
	// Grade says how well it is told that the candidate's connection feeds the asked one: "certain", "supported" or "unknown".
	Grade string `json:"grade"`
	// There is how often something was seen to pass from the candidate's connection to the asked one, and Back how often the other way.
	There int `json:"there"`
	Back  int `json:"back"`
	// Signs are "passed", "octets", "last" and "opened", as far as there are; see docs/decisions/0080-flow.md.
	Signs []string `json:"signs"`
}

// SelectedByFlow is what selected whom to ask where what flows through a process did; see [Traceback].
const SelectedByFlow = "flow"

// Grades of a [Flow].
const (
	FlowCertain   = "certain"
	FlowSupported = "supported"
	FlowUnknown   = "unknown"
)

// A Fed is a candidate with what is told of it, or one that would be one if there were not too many, of which more is told than of
// the others.
type Fed struct {
	Previous Previous
	Flow
}

// Compare orders by how much is told: those with more signs are more, then those by which more passed.
func (f *Flow) Compare(g *Flow) int {
	told := func(f *Flow) (signs, passed int) {
		if f == nil {
			return 0, 0
		}
		return len(f.Signs), f.There + f.Back
	}
	a, b := told(f)
	c, d := told(g)
	return cmp.Or(cmp.Compare(a, c), cmp.Compare(b, d))
}
