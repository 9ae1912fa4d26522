// Package chain joins what several hosts' tokens stand for into the path of a connection, from where it
// began to the host that was reached, and draws it. It is pure: the same reports give the same chain and the
// same drawings, in whichever order they are given.
//
// Reports are strangers' words. Nothing in one can make a chain larger than its bounds, and every text of a
// Chain is printable and short.
package chain

import (
	"net/netip"
	"time"

	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
)

// Version is the version of the JSON form.
const Version = 1

// Bounds of a chain. What is beyond them is counted in [Chain.Omitted].
const (
	maxReports     = 2000
	maxAsked       = 64   // questions of one report
	maxNotAsked    = 8    // candidates of one report that were not asked
	maxConnections = 5000 // all together
	maxPaths       = 100
	maxSteps       = 20000 // of the search for paths
	maxProcesses   = 64    // of one report
	maxGaps        = 10    // of one report that are shown
	maxTold        = 500   // contradictions, and steps to take
	maxText        = 240   // runes of one value
)

// Status says what is known of a host.
type Status string

// Statuses, of two that a host has the one that says more first.
const (
	Reported Status = "reported"  // its report is at hand
	Unknown  Status = "unknown"   // it says that it knows nothing of the connection (a decoy)
	Repeated Status = "repeated"  // its report says that it is a duplicate of one that is not at hand
	Sealed   Status = "sealed"    // it gave a token that is not redeemed yet
	Legacy   Status = "legacy"    // it disclosed a name instead of a token
	Refused  Status = "refused"   // it answered an error
	Awaited  Status = "awaited"   // it had not answered yet when the record was made
	Missing  Status = "missing"   // it did not answer
	NotAsked Status = "not-asked" // another host named it, and did not ask it
	Claimed  Status = "claimed"   // only the word of a user of another host names it
	Reached  Status = "reached"   // it is only known as the other end of a connection
)

var statuses = []Status{Reported, Unknown, Repeated, Sealed, Legacy, Refused, Awaited, Missing, NotAsked, Reached, Claimed}

// A Chain is what reports of several hosts say together. Hosts and connections refer to each other by id, from 1, in
// the order of the picture: from where it began to where it came to.
type Chain struct {
	Version        int             `json:"version"`
	Paths          []Path          `json:"paths"`
	Hosts          []Host          `json:"hosts"`
	Connections    []Connection    `json:"connections"`
	Joins          []Join          `json:"joins"`
	Contradictions []Contradiction `json:"contradictions"`
	Next           []Step          `json:"next"`
	Omitted        []Omission      `json:"omitted"`

	// parts are the pictures, each of which nothing joins to the others: columns of hosts.
	parts [][][]int
	// What belongs to a host, and to a connection, by id.
	at      map[int][]*Connection
	joinsOf map[int][]Join
	about   map[int][]Contradiction
}

// A Path is one way through the hosts, each connection joined to the next by the host between them.
type Path struct {
	Hosts       []int `json:"hosts"`
	Connections []int `json:"connections"`
	// Loop is true where the first connection is one that the path comes to again: nothing leads into it.
	Loop bool `json:"loop"`
}

// A Host is one host of the picture.
type Host struct {
	ID     int    `json:"id"`
	Status Status `json:"status"`
	// Name is what the host calls itself.
	Name string `json:"name"`
	// Addresses are those that it was asked at, or that another host knows it by.
	Addresses []netip.Addr `json:"addresses"`
	// NAT is true where the host passed the connection on for another one.
	NAT bool `json:"nat"`
	// Ends is true where a path ends at the host.
	Ends bool `json:"ends"`
	// Begins says why a path begins at the host, or breaks off there; empty where none does.
	Begins string `json:"begins"`
	// Breaks is true where the way may lead further back than the host could see.
	Breaks bool `json:"breaks"`
	// Unjoined is true where connections come to the host and lead away from it, and no report says that
	// they belong together.
	Unjoined bool      `json:"unjoined"`
	Reports  []Account `json:"reports"`
}

// An Account is what one report says.
type Account struct {
	Token     string      `json:"token"`
	Kind      string      `json:"kind"`
	Asked     *time.Time  `json:"asked"` // by the host's own clock
	Requester netip.Addr  `json:"requester"`
	Type      string      `json:"type"`
	System    string      `json:"system"`
	User      string      `json:"user"`
	UID       *uint32     `json:"uid"`
	Processes []Process   `json:"processes"` // those between the connections
	Clock     *host.Clock `json:"clock"`
	Gaps      int         `json:"gaps"`
	// Breaking are the gaps behind which a way further back may lie, the first of them.
	Breaking []Gap `json:"breaking"`
	// Reason says why nothing was saved; SameAs names the report that has it.
	Reason string `json:"reason"`
	SameAs string `json:"same_as"`
	// Duplicates are tokens that were answered to the same question again.
	Duplicates []string `json:"duplicates"`
	// Standing is what speaks for whom it says to have asked, and what was answered.
	Standing Standing `json:"standing"`
	// Log is the log that proves it; empty for what is no bundle.
	Log string `json:"log"`
	// RecordedBy is the token of a report whose records have this one's, and that not anybody can have made; empty where there is none.
	RecordedBy string `json:"recorded_by"`

	redeemed *report.Redeemed
	out      int // the connection that was asked about
	breaking int
	disputed bool // its copies do not agree whom it asked
	stale    bool // a copy for which less speaks has more answers

	foreignLog bool   // it is not called after the host
	recorder   string // the host of RecordedBy
	outvouched bool   // nothing of it is drawn
}

// A Process is one that holds a connection.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// A Gap is what a host could not see.
type Gap struct {
	PID  int    `json:"pid"`
	What string `json:"what"`
	Why  string `json:"why"`
}

// A Connection leads from one host to the next, in the order of the path. That need not be who opened it.
type Connection struct {
	ID   int `json:"id"`
	From int `json:"from"`
	To   int `json:"to"`
	// Source and Destination are its ends as the host that it leads to has them; where that one has no report, as the
	// other has them. A host known by a login alone has no port.
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// OwnSource and OwnDestination are its ends as the host has them that it comes from, where they differ.
	OwnSource      string `json:"own_source"`
	OwnDestination string `json:"own_destination"`
	// Translated is true where they differ as they do behind NAT.
	Translated bool `json:"translated"`
	// OpenedBy is "from", "to", "unknown", or "disputed".
	OpenedBy string `json:"opened_by"`
	// ToldBy are the hosts whose reports tell of it: "from", "to".
	ToldBy []string `json:"told_by"`
	// Linked is how the reports of both ends were found to be about one connection: "token", "addresses", or empty.
	Linked    string     `json:"linked"`
	Questions []Question `json:"questions"`
	// Clock is how far the clock of the host that it comes from is ahead of the other's.
	Clock *Offset `json:"clock"`

	src, dst netip.AddrPort
}

// A Question is what one host asked another about a connection, or why it did not.
type Question struct {
	By           string     `json:"by"` // token of the report of the host that asked
	Status       Status     `json:"status"`
	Reasons      []string   `json:"reasons"`
	Corroborated bool       `json:"corroborated"` // false: only the user's own word speaks for it
	Sent         *time.Time `json:"sent"`
	Answered     *time.Time `json:"answered"`
	Token        string     `json:"token"`
	// Detail is what was answered instead of a token, or why nobody was asked.
	Detail string `json:"detail"`
}

// A Join says that two connections of a host belong together: by the word of that host alone.
type Join struct {
	Host         int      `json:"host"`
	In           int      `json:"in"`
	Out          int      `json:"out"`
	Token        string   `json:"token"` // of the report that says so
	Reasons      []string `json:"reasons"`
	Corroborated bool     `json:"corroborated"` // false: only the user's own word speaks for it
}

// An Offset is how far one clock is ahead of another, in seconds, and by how much that may be wrong.
type Offset struct {
	Seconds float64 `json:"seconds"`
	Error   float64 `json:"error"`
}

// A Contradiction is what two reports say differently.
type Contradiction struct {
	ID         int    `json:"id"`
	Kind       string `json:"kind"` // one of the constants below
	Hosts      []int  `json:"hosts"`
	Connection int    `json:"connection"` // 0 where it is not about one
	Text       string `json:"text"`
}

// Kinds of contradictions.
const (
	AboutAddress   = "address"   // the ends of the connection
	AboutDirection = "direction" // who opened it
	AboutRequest   = "request"   // who asked what
	AboutTime      = "time"
	AboutBytes     = "bytes"
	AboutName      = "name"   // two hosts at one address
	AboutRecord    = "record" // two copies of one token's records
)

// A Step is what to ask whom next.
type Step struct {
	Host   int    `json:"host"`
	Action string `json:"action"` // one of the constants below
	Token  string `json:"token"`
	Text   string `json:"text"`
}

// Actions.
const (
	ToRedeem  = "redeem"  // a token
	ToAsk     = "ask"     // a host, with stopctl request
	ToInquire = "inquire" // of an administrator, what other records there are
	ToCompare = "compare" // what two hosts say with what a third knows
)

// An Omission counts what is left out of a chain.
type Omission struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}
