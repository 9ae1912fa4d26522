package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/stopd/stopd"
)

// An Answerer examines the host. It is a seam between processes: whoever answers strangers must not be who
// may look at everything.
type Answerer interface {
	// Find looks the asked connection up and nothing else. The error is [stop.ErrNoUser] where nobody
	// answers for it.
	Find(ctx context.Context, q stop.Question) (stop.Connection, error)
	// Examine answers a question. What the token stands for is durable when it returns, and the candidates for the
	// previous host are with whoever asks them. The error is [stop.ErrNoUser] where nobody answers for the connection.
	Examine(ctx context.Context, q stop.Question) (stop.Examined, error)
	// Decline saves why a question was not examined, or of which token it is a duplicate.
	Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error)
}

// A Tracer asks previous hosts. It is a seam between processes: whoever answers strangers must not know whom a
// connection leads back to. [Tracebacks] is one.
type Tracer interface {
	// Begin has the previous hosts asked that a token leads back to. Its reply has left.
	Begin(ctx context.Context, t stop.Token) error
	// Counted gives what it counted.
	Counted(ctx context.Context) (Counted, error)
}

// What is answered where RFC 1413 has an error.
const (
	ErrorsStandard = "standard" // the error that applies
	ErrorsUnknown  = "unknown"  // UNKNOWN-ERROR for every error
	ErrorsToken    = "token"    // a decoy
)

// What is answered over a bound.
const (
	OverDecoy = "decoy"
	OverError = "error" // UNKNOWN-ERROR; questions on behalf of others get a decoy all the same
)

// A Config is what an administrator decides, for a [Server] and for its [Tracebacks].
type Config struct {
	Errors string
	// OptIn lets users tell hosts of their choice their names.
	OptIn bool
	// OnBehalf lists who may ask on behalf of other hosts: in plain from a port below 1024, by TLS with a pinned key.
	OnBehalf []netip.Prefix
	// Peers are answered otherwise. No two have the same prefix.
	Peers     []Peer
	Slots     Slots
	Limits    Limits
	Traceback TracebackConfig
	// Forwards is true on a host that answers for connections that it passes on for other machines (NAT), as for its own:
	// every token has a trace-back then, and those machines are asked, where they have the connection with another host on behalf of that.
	Forwards bool
	// Certificate is this host's, for those that speak TLS; nil refuses them.
	Certificate *tls.Certificate `json:"-"`
	// Shown gives what hosts that are asked by TLS are shown of this one; nil, and a nil certificate, are nothing.
	Shown func(context.Context) (*tls.Certificate, error) `json:"-"`
	// Flow has it told which candidates of a token's question feed the asked connection, by watching; nil where nobody can.
	Flow   func(context.Context, stop.Token) ([]stop.Fed, error) `json:"-"`
	Logger *slog.Logger                                          `json:"-"`
}

// tracesBack reports whether a token has a trace-back, be it of nobody.
func (c *Config) tracesBack(t stop.Type) bool { return t.Recursive() || c.Forwards }

// Limits bound the work. All are positive.
type Limits struct {
	Connections          int // open at once; over it the one idle longest is closed
	ConnectionsPerSource int
	RequestsPerConn      int
	Idle                 time.Duration // until a line has arrived, and until a reply is written
	Lookups              int           // questions examined at once
	PerSourcePerSecond   float64       // misses, repeats and ID requests of one source
	Burst                int
	PerUserPerSecond     float64 // first SV and SV_REC requests on the connections of one local user
	UserBurst            int
	AskersPerSID         int
	Table                int // entries of each table: duplicates, sources, users, connections followed
	Over                 string
}

func (l Limits) perSource() allowance { return allowance{l.PerSourcePerSecond, l.Burst} }
func (l Limits) perUser() allowance   { return allowance{l.PerUserPerSecond, l.UserBurst} }

// A TracebackConfig says how previous hosts are asked.
type TracebackConfig struct {
	Port   uint16
	Window time.Duration // in which a repeated request is a duplicate, and a connection is followed once
	// To lists where hosts may be asked at all, OutboundTo where hosts that this one connected to itself
	// may be: asking tells them.
	To, OutboundTo []netip.Prefix
	MaxPrevious    int
	Timeout        time.Duration // for each host
	Parallel       int           // trace-backs under way at once
}

func within(a netip.Addr, ps []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
