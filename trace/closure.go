package trace

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/stopd/stopd/host"
)

// Options bound a trace.
type Options struct {
	// Hub is how many local peers outside the closure make a channel a hub, which is not followed.
	Hub int
	// Processes and Descriptors bound what one trace reads. At a bound the trace ends with a gap.
	Processes   int
	Descriptors int
	// Bytes bounds what their names, arguments and paths may take together.
	Bytes int
}

// Defaults are the bounds of a daemon that was told nothing else.
var Defaults = Options{Hub: 16, Processes: 512, Descriptors: 16384, Bytes: 4 << 20}

// A Question is what a trace is about.
type Question struct {
	Socket host.Socket
	// Host is what is known of the host itself; its addresses tell local connections from others.
	Host host.Facts
	// OnBehalf is true where the asker is not the other end of the connection.
	OnBehalf bool
	// Daemon are the processes that ask the question. They talk to all who ask them and pass nothing on, so they
	// are never followed into.
	Daemon []int
}

// Run traces a socket over a snapshot. It always returns a result: what could not be seen, or was left
// out at a bound or at the context's deadline, is among its gaps.
func Run(ctx context.Context, snap host.Snapshot, q Question, o Options) Result {
	t := &tracer{ctx: ctx, snap: snap, q: q, opt: o, byPID: map[int]*node{}, ended: map[host.ID]*node{}, past: map[host.ID]*host.Remembered{}, byKey: map[string]*Channel{}, uses: map[use][]int{}, ledBy: map[host.Object]bool{}, visited: map[host.Object]bool{}}
	t.owners()
	t.previous()
	t.kept()
	logins := t.logins()
	t.login(logins)
	t.recall()
	t.users(logins)
	t.unexplained()
	t.gaps = append(t.gaps, snap.Gaps()...)
	return t.result()
}

// A node is a process of the closure while it grows.
type node struct {
	Process
	owner    bool
	parent   *node // nil where it is not in the closure
	acceptor bool  // see accepted
	// entered holds the slave sides of pseudo terminals through which the process was found. The
	// terminal driver passes nothing from one holder of a slave to another, so the closure does not
	// go back through them.
	entered map[host.Object]bool
	// joined is true where it is at an end of a channel that is remembered.
	joined bool
	// was is what it had then, beside its descriptors.
	was []host.Descriptor
	// asked is true where it was looked for connections with this host itself, and led where commands came by one; see local.
	asked, led bool
	serves     map[uint16]bool // the ports of its services once they are asked for; see accepts
}

type tracer struct {
	ctx  context.Context
	snap host.Snapshot
	q    Question
	opt  Options

	nodes    []*node
	byPID    map[int]*node     // those that are alive
	ended    map[host.ID]*node // the others
	past     map[host.ID]*host.Remembered
	blind    bool // not all is asked for that is remembered: nobody is named for what is known beside
	channels []*Channel
	byKey    map[string]*Channel
	found    []Previous
	uses     map[use][]int // who uses a service, as found so far
	// commanded is whose commands can have come to the asked socket.
	commanded map[*node]bool
	// told are those whom something that is over joins to the asked socket, otherwise than as ancestors; see joined.
	told  map[*node]bool
	apart [][2]*node // see ways
	spans func() map[*node]span
	crowd []Crowded
	// several are those by whose connections commands came of which nothing tells by which; see unclear.
	several []*node
	// then is the time about which it is asked who told whom what is remembered; zero before it is asked.
	then time.Time
	// absent are those whose connections were closed as somebody else came to a terminal that was begun by them; see left.
	absent []*node
	// clients are connections of this host with itself, and ledBy those by which commands came.
	clients []client
	ledBy   map[host.Object]bool
	// visited are this host's own connections with who has the asked socket that are closed and count beside what is open, and whether they lead on; see visits.
	visited map[host.Object]bool
	// impersonal is true where nothing that is open explains the asked socket but what services have accepted.
	impersonal bool
	loose      bool // nothing explains the asked socket but what a service accepted whose client it is
	names      []User
	gaps       []host.Gap

	descriptors int
	bytes       int
	full        bool
	moved       bool
}

func (t *tracer) gap(pid int, what, why string) {
	t.gaps = append(t.gaps, host.Gap{PID: pid, What: what, Why: why})
}

// bound reports whether the trace must stop, and says so once.
func (t *tracer) bound() bool {
	if t.full {
		return true
	}
	var why string
	switch {
	case t.ctx.Err() != nil:
		why = "deadline"
	case len(t.nodes) >= t.opt.Processes:
		why = strconv.Itoa(t.opt.Processes) + " processes"
	case t.descriptors >= t.opt.Descriptors:
		why = strconv.Itoa(t.opt.Descriptors) + " descriptors"
	case t.opt.Bytes > 0 && t.bytes >= t.opt.Bytes:
		why = strconv.Itoa(t.opt.Bytes) + " bytes"
	default:
		return false
	}
	t.full = true
	t.gap(0, "trace", "bound: "+why)
	return true
}

// owners finds everybody who holds the asked socket, their parents, and what they are joined to.
func (t *tracer) owners() {
	s := t.q.Socket
	holders, err := t.snap.Holders(t.ctx, s.Object)
	if err != nil {
		t.gap(0, "owners", err.Error())
	} else if len(holders) == 0 {
		t.gap(0, "owners", "no process was found that holds the socket: it may be the kernel's own, or on its way between processes")
	}
	var chain []*node
	for _, h := range holders {
		if t.q.Socket.Recalled && t.apartFrom(holders[0].ID, h.ID) {
			t.gap(h.PID, "owners", "not considered: it ended the connection, which another user's process had, and neither made the other")
			continue
		}
		if n := t.node(h.ID); n != nil { // an owner that is another owner's ancestor
			n.owner, n.acceptor = true, false
			continue
		}
		chain = append(chain, t.walk(h, Via{By: ByOwner}, s.Object)...)
	}
	t.expand(chain)
}

// walk adds a process and its ancestors, up to one that is in the closure already (walk_ptree, thesis
// section 4.3.2). It returns those added, the process first; none where it is not the process any more
// that held the object, if one is given.
func (t *tracer) walk(h host.Holder, via Via, o host.Object) []*node {
	n := t.addEnded(h.ID, via)
	if n == nil {
		n = t.add(h.PID, via)
	}
	if n == nil {
		return nil
	}
	if h.Start != 0 && n.StartTicks != 0 && h.Start != n.StartTicks {
		t.drop(n)
		t.gap(h.PID, "process", "it ended while the host was looked at, and its pid was used again")
		return nil
	}
	if o != "" && !n.holds(o) && !(via.By == ByOwner && t.q.Socket.Recalled) {
		t.gap(h.PID, "descriptors", "they changed while the process was looked at")
		t.moved = t.moved || via.By == ByOwner
	}
	n.owner = via.By == ByOwner
	chain := []*node{n}
	for !t.bound() {
		id, by, ok := t.parentOf(n)
		if !ok {
			break
		}
		p, added := t.parent(n, id, by)
		n.parent = p
		if !added {
			break
		}
		chain = append(chain, p)
		n = p
	}
	return chain
}

// isInit reports whether a process is the one that everybody descends from, and that speaks with
// everybody. Nothing continues through it.
func (n *node) isInit() bool { return n.PID <= 1 && !n.owner }

func (n *node) holds(o host.Object) bool {
	return slices.ContainsFunc(n.Descriptors, func(d host.Descriptor) bool { return d.Object == o })
}

// add reads a process into the closure, with the role of where it was found from; nil where it cannot.
func (t *tracer) add(pid int, via Via) *node {
	if t.bound() {
		return nil
	}
	p, err := t.snap.Process(t.ctx, pid)
	if err != nil {
		// Process 0 is not a process that every system shows.
		if pid != 0 || !errors.Is(err, host.ErrNotFound) {
			t.gap(pid, "process", err.Error())
		}
		return nil
	}
	return t.enter(p, via)
}

// enter enters a process into the closure.
func (t *tracer) enter(p host.Process, via Via) *node {
	role := Resolved
	if via.By == ByOwner || via.By != ByChannel && t.nodes[*via.From-1].Role == Primary {
		role = Primary
	}
	n := &node{Process: Process{Index: len(t.nodes) + 1, Role: role, Via: via, Process: p}, entered: map[host.Object]bool{}}
	t.nodes = append(t.nodes, n)
	if p.Exited == nil {
		t.byPID[p.PID] = n
	} else {
		t.ended[p.ID()] = n
	}
	t.descriptors += len(p.Descriptors)
	t.bytes += size(p)
	return n
}

// drop takes back the last process added.
func (t *tracer) drop(n *node) {
	t.nodes = t.nodes[:len(t.nodes)-1]
	if n.Exited == nil {
		delete(t.byPID, n.PID)
	} else {
		delete(t.ended, n.ID())
	}
	t.descriptors -= len(n.Descriptors)
	t.bytes -= size(n.Process.Process)
}

// size is what the strings of a process take.
func size(p host.Process) int {
	n := len(p.Name) + len(p.Exe) + len(p.CWD) + len(p.Cgroup)
	for _, a := range p.Args {
		n += len(a)
	}
	for _, d := range p.Descriptors {
		n += len(d.Path) + len(d.PeerPath) + len(d.Name)
	}
	return n
}

// expand follows every channel of the given processes, depth first (thesis Appendix B.2).
func (t *tracer) expand(chain []*node) {
	for _, n := range chain {
		if n.isInit() || n.Exited != nil { // see joined
			continue
		}
		for _, d := range n.Descriptors {
			if t.bound() {
				return
			}
			t.follow(n, d)
		}
	}
}

// accepted reports whether a process found only as a parent is the listener that accepted its child's
// connection. What else it holds belongs to its other clients: sshd keeps a pipe to each of those that
// are just logging in.
func (t *tracer) accepted(n *node) bool {
	if n.Exited != nil {
		return t.acceptedFor(n, t.nodes[*n.Via.From-1])
	}
	for _, l := range n.Descriptors {
		if l.Kind != host.TCP || !l.Listening() {
			continue
		}
		for child := t.nodes[*n.Via.From-1]; ; child = t.nodes[*child.Via.From-1] {
			if slices.ContainsFunc(child.Descriptors, func(d host.Descriptor) bool {
				return t.remote(d) && !t.openedHere(d) && d.Direction == host.Inbound && d.Local.Port() == l.Local.Port()
			}) || t.heldBy(child, l.Local.Port()) {
				return true
			}
			if child.Via.By != ByParent && child.Via.By != ByRecordedParent {
				break
			}
		}
	}
	return false
}

func (t *tracer) result() Result {
	r := Result{Previous: t.found, Users: t.names, Gaps: t.gaps, Moved: t.moved, Crowd: t.crowd}
	for _, n := range t.nodes {
		r.Processes = append(r.Processes, n.Process)
		if n.owner {
			r.Owners = append(r.Owners, n.PID)
		}
	}
	for _, c := range t.channels {
		r.Channels = append(r.Channels, *c)
	}
	return r
}
