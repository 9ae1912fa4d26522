// Package examine answers one question: it looks at the host, traces, writes the report and gives its
// bytes to a keeper, and returns the token. It is the thesis's process_req (section 4.2.3).
package examine

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/host"
	"github.com/stopd/stopd/report"
	"github.com/stopd/stopd/trace"
)

// A Keeper keeps evidence. It is a seam between processes: reports go through it and nowhere else.
type Keeper interface {
	// Keep keeps a report, charged to who has it made, and returns its token once it is durable. The error is
	// [stop.ErrNoRoom] where it is too much.
	Keep(ctx context.Context, report []byte, p stop.Payer) (stop.Token, error)
}

// A Tracer asks previous hosts. It is a seam between processes: who the candidates are goes through it and nowhere else.
type Tracer interface {
	// Found takes what the token of a recursive question leads back to.
	Found(ctx context.Context, f stop.Finding) error
}

// An Examiner answers questions about one host. Its methods may be called from several goroutines.
type Examiner struct {
	Host   host.Host
	Keeper Keeper
	// Tracer is told of every token of a recursive question, whatever it stands for. Other questions need none.
	Tracer Tracer
	// Name and Version say in each report what wrote it; Sources say where it looked.
	Name, Version string
	Sources       func() []string
	// PIDs are the daemon's own processes, which a trace does not follow into.
	PIDs []int
	// Deadline bounds one trace. What is not found by then is a gap.
	Deadline time.Duration
	Trace    trace.Options
	Save     Groups
	// Forwards is true on a host that answers for connections that it passes on for other machines (NAT): every token has a
	// trace-back then, as those machines are asked by questions of every type.
	Forwards bool
	// Checkpoint gives the digest of the host's last checkpoint, or nothing; nil where there is no log.
	Checkpoint func() string
	// Secret is what the numbers of a [stop.Connection] are made with: who does not have it cannot tell what they stand for.
	Secret []byte
	// UserName turns a user id into a name; empty is unknown.
	UserName func(ctx context.Context, uid uint32) string
	// Tell returns the name of a socket's user where a question may be answered with it, else nothing; unread is set
	// where the user's files were to be read for that and were not. The socket is zero where there is none of a user of
	// this host. Nil tells no names.
	Tell func(ctx context.Context, q stop.Question, s host.Socket) (name string, unread bool)
	// Watch watches a process for a window of time, or until the context ends; nil where nobody can.
	Watch func(ctx context.Context, id host.ID, window time.Duration) ([]host.Transfer, error)
	// Watchables has what could be watched by now; who takes the place of an examiner goes on with the same. Needed where there is Watch.
	Watchables *Watchables
}

// Find looks the asked connection up, and nothing else. The error is [stop.ErrNoUser] where nobody answers
// for it.
func (x *Examiner) Find(ctx context.Context, q stop.Question) (stop.Connection, error) {
	s, err := x.find(ctx, q)
	if err != nil && ownerless(err) == nil {
		return stop.Connection{}, err
	}
	return x.connectionOf(q, s, err), nil
}

// connectionOf is what a connection is told from others by; err is nil or why it has no owner.
func (x *Examiner) connectionOf(q stop.Question, s host.Socket, err error) stop.Connection {
	since := ""
	ends, owner := host.Ends{Local: q.AskedEnd(), Remote: q.Remote}, x.number("user %d", uint32(nobody))
	if err == nil {
		ends, owner = s.Outside(), x.number("user %d", s.UID)
	} else if f, ok := forwarded(q, err); ok {
		owner = x.number("machine %s", f.Original.Local.Addr()) // each behind a gateway has an allowance of its own
		if !f.Opened.IsZero() {
			since = f.Opened.UTC().Format(" 2006-01-02T15:04:05.999999999") // a later one of the same machine is another
		}
	}
	return stop.Connection{ID: max(1, x.number("connection %s %s%s", ends.Local, ends.Remote, since)), Owner: owner}
}

// number is the same for the same text, and says nothing else.
func (x *Examiner) number(format string, args ...any) uint64 {
	h := hmac.New(sha256.New, x.Secret)
	fmt.Fprintf(h, format, args...)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// nobody is the owner of a connection that is not known: the user id that no system gives.
const nobody = 1<<32 - 1

// ownerless returns the error of a connection that was not found and is answered for all the same, or nil: what is
// known of it is reported, without an owner.
func ownerless(err error) error {
	if hidden := (*host.HiddenError)(nil); errors.As(err, &hidden) {
		return hidden
	}
	if forwarded := (*host.ForwardedError)(nil); errors.As(err, &forwarded) {
		return forwarded
	}
	return nil
}

// Why nobody answers for a connection. There is no more to it: it is told to whoever speaks to strangers.
var (
	errNoConnection = fmt.Errorf("%w: no such connection", stop.ErrNoUser)
	errNoHolder     = fmt.Errorf("%w: no process holds the connection", stop.ErrNoUser)
	errInbound      = fmt.Errorf("%w: this host did not open the connection", stop.ErrNoUser)
)

// find returns the socket that a question is about, where there is somebody to answer for it.
func (x *Examiner) find(ctx context.Context, q stop.Question) (host.Socket, error) {
	f := host.Flow{Protocol: host.TCP, Local: q.AskedEnd(), Remote: q.Remote}
	s, err := x.Host.Find(ctx, f)
	if errors.Is(err, host.ErrNotFound) && !q.SentTo.IsValid() {
		f.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), f.Local.Port())
		s, err = x.Host.Find(ctx, f)
	}
	switch {
	case errors.Is(err, host.ErrNotFound):
		return host.Socket{}, errNoConnection
	case !q.OnBehalf() && passedIn(q, err):
		return host.Socket{}, errInbound
	case err != nil:
		return host.Socket{}, fmt.Errorf("find connection: %w", err)
	case s.Inode == 0 && s.Object == "":
		// The uid of such a row says nothing, often 0: answering it would accuse root.
		return host.Socket{}, errNoHolder
	case s.Direction == host.Inbound && s.DirectionSource != host.FromListener && !q.OnBehalf():
		// Not by a hint: anybody can listen on the port that he connects from.
		return host.Socket{}, errInbound
	case s.Unsure && q.Type == stop.ID:
		// All that is kept is whose it was, and it may have been another's since. Of the other types the report has the gap.
		return host.Socket{}, errNoHolder
	}
	return s, nil
}

// Examine answers a question: it saves a report and returns its token. Where the type asks for it, the candidates for the
// previous host are with the Tracer then. The error is [stop.ErrNoUser] where nobody answers for the connection,
// [stop.ErrNoRoom] where there is no room to save; nothing is saved then.
func (x *Examiner) Examine(ctx context.Context, q stop.Question) (stop.Examined, error) {
	r, l, err := x.look(ctx, q)
	if err != nil {
		return stop.Examined{}, err
	}
	p := x.payer(q)
	if c := r.Connection; c != nil { // none was found where translation hides it
		p.UID, p.Owned = c.UID, true
	}
	f := stop.Finding{Connection: l.connection, Watchable: l.watchable != nil}
	if q.Type.Recursive() || r.Forwarded != nil {
		f.Previous = l.candidates(r.Previous)
	}
	t, err := x.keep(ctx, q, bounded(&r), p, f, l.watchable)
	if err != nil {
		return stop.Examined{}, err
	}
	e := stop.Examined{Token: t}
	if x.Tell != nil && q.Naming != stop.NameNever {
		// In other network namespaces a number may be a container's own user.
		if elsewhere(l.socket.NetNS, l.home) || l.socket.Unsure {
			l.socket = host.Socket{}
		}
		e.Name, e.Unread = x.Tell(ctx, q, l.socket)
	}
	return e, nil
}

// keep keeps a report, and hands on what its token leads back to. What could be watched is nil where nothing is.
func (x *Examiner) keep(ctx context.Context, q stop.Question, b []byte, p stop.Payer, f stop.Finding, w *trace.Watchable) (stop.Token, error) {
	t, err := x.Keeper.Keep(ctx, b, p)
	if err != nil {
		return stop.Token{}, fmt.Errorf("keep report: %w", err)
	}
	if x.tracesBack(q.Type) {
		f.Token, f.Type, f.SID, f.Requester = t, q.Type, q.SID, q.Requester
		if w != nil {
			x.Watchables.add(t, *w)
		}
		if err := x.Tracer.Found(ctx, f); err != nil {
			return stop.Token{}, fmt.Errorf("hand on previous hosts: %w", err)
		}
	}
	return t, nil
}

// elsewhere reports whether a network namespace is another than the daemon's own; 0 is not known.
func elsewhere(netns, home uint64) bool { return netns != 0 && home != 0 && netns != home }

// Look returns the report that Examine would save, and saves nothing.
func (x *Examiner) Look(ctx context.Context, q stop.Question) (report.Report, error) {
	r, _, err := x.look(ctx, q)
	return r, err
}

// A looked is what a look tells beside the report.
type looked struct {
	connection stop.Connection
	socket     host.Socket // zero where none was found
	home       uint64      // the daemon's own network namespace
	// watchable is nil where watching a process would tell nothing, or nobody is asked for what it tells.
	watchable *trace.Watchable
	onBehalf  bool // the machine that the connection is passed on for is asked on behalf of the other end
}

func (x *Examiner) look(ctx context.Context, q stop.Question) (report.Report, looked, error) {
	s, err := x.find(ctx, q)
	if err != nil && ownerless(err) == nil {
		return report.Report{}, looked{}, err
	}
	r := x.blank(ctx, q)
	l := looked{connection: x.connectionOf(q, s, err), socket: s, home: r.Host.NetNS}
	r.Kind = report.KindID
	switch {
	case err != nil:
		l.onBehalf = x.unowned(q, ownerless(err), &r)
	case q.Type == stop.ID:
		r.Connection = x.connection(ctx, s)
	default:
		r.Connection = x.connection(ctx, s)
		t, err := x.trace(ctx, q, s, &r)
		if err != nil {
			return report.Report{}, looked{}, err
		}
		if w, ok := t.Watchable(s); ok && x.Watch != nil && q.Type.Recursive() {
			l.watchable = &w
		}
	}
	if q.Type.Full() {
		r.Kind = report.KindSV
	} else {
		// ID_REC walks only to find the previous hosts.
		r.Processes, r.Channels, r.Users = nil, nil, nil
	}
	if translated(r) {
		r.Tool.Sources = append(slices.Clip(r.Tool.Sources), "conntrack")
	}
	x.Save.apply(&r)
	return r, l, nil
}

// translated reports whether a connection of a report, or one with a previous host, has other ends outside of
// the host than its own, as connection tracking tells (Linux; no other system tells yet).
func translated(r report.Report) bool {
	return r.Connection != nil && r.Connection.NAT != nil || r.Forwarded != nil ||
		slices.ContainsFunc(r.Previous, func(p trace.Previous) bool { return slices.Contains(p.Reasons, trace.ReasonNAT) })
}

// Decline saves a small report for a question that is not examined, so that its token can be redeemed to
// what it stands for: a decoy, with why, or a duplicate of an earlier question.
func (x *Examiner) Decline(ctx context.Context, q stop.Question, why string, sameAs stop.Token) (stop.Token, error) {
	r := x.blank(ctx, q)
	r.Kind, r.Reason = report.KindNone, why
	if sameAs != (stop.Token{}) {
		r.Kind, r.SameAs = report.KindDuplicate, sameAs.String()
	}
	x.Save.apply(&r)
	return x.keep(ctx, q, report.Encode(r), x.payer(q), stop.Finding{}, nil)
}

// payer is who asks.
func (x *Examiner) payer(q stop.Question) stop.Payer {
	return stop.Payer{Source: q.Requester, Traceback: x.tracesBack(q.Type)}
}

// tracesBack reports whether a token has a trace-back, be it of nobody: that of every recursive question, and on a host that answers
// for others of every question.
func (x *Examiner) tracesBack(t stop.Type) bool { return t.Recursive() || x.Forwards }

// blank returns a report with what every report has.
func (x *Examiner) blank(ctx context.Context, q stop.Question) report.Report {
	var salt [32]byte
	rand.Read(salt[:]) // never fails
	facts, gaps := x.Host.Facts(ctx)
	r := report.Report{
		Version: report.Version, Salt: hex.EncodeToString(salt[:]),
		Tool: report.Tool{Name: x.Name, Version: x.Version, Sources: x.Sources(), GroupsOff: x.Save.off()},
		Host: facts, Gaps: gaps,
		Request: report.Request{Time: q.Time, Type: q.Type.String(), Local: q.Local, Remote: q.Remote,
			Requester: q.Requester, OnBehalf: q.OnBehalf()},
	}
	if x.Checkpoint != nil {
		r.Request.Checkpoint = x.Checkpoint()
	}
	if q.Type.Recursive() {
		r.Request.SID = strconv.FormatUint(q.SID, 10)
	}
	return r
}

func (x *Examiner) connection(ctx context.Context, s host.Socket) *report.Connection {
	c := &report.Connection{
		Protocol: s.Protocol, State: s.State, Direction: s.Direction, DirectionSource: s.DirectionSource,
		UID: s.UID, User: x.UserName(ctx, s.UID), Inode: s.Inode, Object: s.Object, Cookie: s.Cookie, NetNS: s.NetNS, Bytes: s.Bytes,
		Opened: s.Opened, Closed: s.Closed,
	}
	if s.NAT != (host.NAT{}) {
		c.NAT = &report.NAT{Original: new(s.NAT.Original), Translated: new(s.NAT.Translated)}
	}
	return c
}

// maxLooks is how often the host is looked at for one question, where processes hand the connection to each other meanwhile.
const maxLooks = 5

func (x *Examiner) trace(ctx context.Context, q stop.Question, s host.Socket, r *report.Report) (t trace.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, x.Deadline)
	defer cancel()
	began := time.Now()
	// A later look may find nobody, or less before the deadline: what an earlier one found is kept then.
	less := func(now trace.Result) bool {
		return len(now.Owners) == 0 && len(t.Owners) > 0 || ctx.Err() != nil && len(now.Processes) < len(t.Processes)
	}
	for looks := 1; ; looks++ {
		snap, err := x.Host.Snapshot(ctx)
		if err != nil {
			return t, fmt.Errorf("look at the host: %w", err)
		}
		now := trace.Run(ctx, snap, trace.Question{Socket: s, Host: r.Host, OnBehalf: q.OnBehalf(), Daemon: x.PIDs}, x.Trace)
		snap.Close()
		if looks == 1 || !less(now) {
			t = now
		}
		if !t.Moved || looks == maxLooks || time.Since(began) > x.Deadline/2 {
			break
		}
	}
	r.Connection.Owners = t.Owners
	if r.Connection.Owners == nil {
		r.Connection.Owners = []int{}
	}
	r.Processes, r.Channels, r.Previous, r.Users = t.Processes, t.Channels, t.Previous, t.Users
	r.Gaps = append(r.Gaps, t.Gaps...)
	return t, nil
}

// maxReport is the largest report that is kept. The bounds of a trace keep below it, but for what one
// process can do by itself.
const maxReport = 8 << 20

// bounded encodes a report. Its subject must not escape by making it too large: what takes most is left out,
// and said to be.
func bounded(r *report.Report) []byte {
	b := report.Encode(*r)
	drop := func(what string, from func(p *host.Process)) {
		if len(b) <= maxReport {
			return
		}
		for i := range r.Processes {
			from(&r.Processes[i].Process)
		}
		r.Gaps = append(r.Gaps, host.Gap{What: what, Why: fmt.Sprintf("bound: with them the report would have %d octets", len(b))})
		b = report.Encode(*r)
	}
	drop("arguments", func(p *host.Process) { p.Args = nil })
	drop("descriptors that are no ends of channels", func(p *host.Process) {
		p.Descriptors = slices.DeleteFunc(p.Descriptors, func(d host.Descriptor) bool { return d.Object == "" || d.Kind.Keeps() })
	})
	drop("descriptors", func(p *host.Process) { p.Descriptors = nil })
	return b
}

// candidates are the previous hosts as who asks them needs them. From other network namespaces than the daemon's own
// nobody can be asked.
func (l looked) candidates(ps []trace.Previous) []stop.Previous {
	var out []stop.Previous
	for _, p := range ps {
		c := candidate(p, l.home)
		c.OnBehalf = l.onBehalf
		out = append(out, c)
	}
	return out
}

func candidate(p trace.Previous, home uint64) stop.Previous {
	return stop.Previous{Ends: stop.Ends{Remote: p.Remote, Local: p.Local}, Outbound: p.Direction == host.Outbound,
		Reasons: p.Reasons, Corroborated: p.Corroborated, Elsewhere: elsewhere(p.NetNS, home)}
}
