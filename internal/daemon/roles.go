package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/stopd/stopd/internal/selftest"
	"github.com/stopd/stopd/server"
)

// A role is what one of the daemon's processes does. All are this program, run once more.
type role string

const (
	front     role = "front"     // accepts strangers
	tracer    role = "tracer"    // connects to previous hosts and witnesses
	collector role = "collector" // reads the host
	keeper    role = "keeper"    // has the store
	tested    role = "tested"    // is what the self-test looks at
)

// roles are all but the supervisor, in the order in which they are started.
var roles = []role{keeper, tracer, collector, front}

// roleVariable names the role of a process that the supervisor starts.
const roleVariable = "STOPD_ROLE"

// The descriptors that a role inherits: its link with the supervisor, its links with others in the order of links,
// and what else it needs: the front and the tracer an empty directory, the front and the keeper a socket that passes listeners.
const (
	controlFD  = 3
	firstJoint = 4
)

// A join is what one role may call of another.
type join struct {
	from, to role
	calls    []call
}

// joins are all there is between roles. Where each calls the other, both go by one link.
var joins = []join{
	{front, collector, []call{callFind, callExamine, callDecline, callRecorded, callCounted}},
	{front, tracer, []call{callBegin, callCounted}},
	{collector, tracer, []call{callFound, callResolve}},
	{tracer, collector, []call{callFlow}},
	{front, keeper, []call{callCertificate, callSignServer}},
	{collector, keeper, []call{callKeep, callCheckpoint, callKeepPast, callPast}},
	{tracer, keeper, []call{callKeepTraceback, callCertificate, callSignClient}},
	{keeper, tracer, []call{callPost, callForward}},
}

// links are the pairs of roles that are joined, in an order that all processes know.
func links() (pairs [][2]role) {
	for _, j := range joins {
		if !slices.Contains(pairs, [2]role{j.to, j.from}) {
			pairs = append(pairs, [2]role{j.from, j.to})
		}
	}
	return pairs
}

// mayCall reports whether a role may call something of another.
func mayCall(from, to role, c call) bool {
	return slices.ContainsFunc(joins, func(j join) bool { return j.from == from && j.to == to && slices.Contains(j.calls, c) })
}

// A started is what a role is told at its start.
type started struct {
	UID       int  // to run as, -1 to stay
	Root      bool // an inherited descriptor is the empty directory to change the root to
	Config    Config
	Server    *server.Config `json:",omitempty"` // of the front and the tracer
	Listeners int            // that the front is passed
	Metrics   bool           // and that one more is for metrics
	PIDs      []int          // of all processes of the daemon
	PastKey   []byte         `json:",omitempty"` // of the collector: seals what is kept over a restart; empty where nothing is
	Trial     *trial         `json:",omitempty"` // to be tried instead of starting
}

// A trial is what a process is to try.
type trial struct {
	File  string // which it might read
	Dir   string // which it might make a file in
	Store string // a directory, which only the keeper is to make files in
	PID   int    // which it might send a signal to
}

// A part is what a role is made of.
type part interface {
	start(started) error
	reload(started) error
	stop()
	// serves answers what another role calls; the supervisor's calls that are not for every role come here too.
	serves(ctx context.Context, c call, b []byte) ([]byte, error)
}

// RunRole runs the role that this process was started for; false where it is none.
func RunRole() (status int, is bool) {
	r := role(os.Getenv(roleVariable))
	if r == "" {
		return 0, false
	}
	// The supervisor says when to end and what to read again, whoever else was sent the signal.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	if r == tested {
		if selftest.Wait() != nil {
			return 1, true
		}
		return 0, true
	}
	if r == reader {
		if readHome(os.Stdin, os.Stdout) != nil {
			return 1, true
		}
		return 0, true
	}
	debug.SetGCPercent(200) // heaps are small: at 100 the collecting would cost the collector a quarter of its time
	p := &process{role: r}
	if err := p.open(); err != nil {
		fmt.Fprintf(os.Stderr, "stopd: open role %q: %v\n", r, err)
		return 1, true
	}
	<-p.control.ended
	p.end()
	return 0, true
}

// A process is one role, running.
type process struct {
	role    role
	control *link
	log     *slog.Logger
	part    atomic.Pointer[part]
	joints  map[role]*link
	extra   uintptr // the first descriptor after the joints
}

func (p *process) open() error {
	conn, err := inherited(controlFD)
	if err != nil {
		return err
	}
	joints := map[role]net.Conn{}
	fd := uintptr(firstJoint)
	for _, l := range links() {
		if l[0] != p.role && l[1] != p.role {
			continue
		}
		other := l[0]
		if other == p.role {
			other = l[1]
		}
		if joints[other], err = inherited(fd); err != nil {
			return err
		}
		fd++
	}
	p.joints = map[role]*link{}
	for other, c := range joints {
		p.joints[other] = newLink(c, p.serveOther(other))
	}
	p.extra = fd
	ready := make(chan struct{})
	p.control = newLink(conn, func(ctx context.Context, c call, b []byte) ([]byte, error) {
		<-ready
		return p.serveControl(ctx, c, b)
	})
	p.log = slog.New(&farLog{link: p.control})
	close(ready)
	return nil
}

// inherited is a socket that this process was started with.
func inherited(fd uintptr) (net.Conn, error) {
	f := os.NewFile(fd, "inherited")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use descriptor %d: %w", fd, err)
	}
	return c, nil
}

// serveOther answers another role what it may call, once this one has started.
func (p *process) serveOther(from role) func(context.Context, call, []byte) ([]byte, error) {
	return func(ctx context.Context, c call, b []byte) ([]byte, error) {
		part := p.part.Load()
		switch {
		case !mayCall(from, p.role, c):
			return nil, errCall(c)
		case part == nil:
			return nil, errors.New("not started yet")
		}
		return (*part).serves(ctx, c, b)
	}
}

// serveControl does what the supervisor says.
func (p *process) serveControl(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callStart:
		return serve(ctx, c, b, p.begin)
	case callProve:
		return serve(ctx, c, b, func(_ context.Context, t trial) ([]string, error) { return prove(t), nil })
	case callAbilities:
		return serve(ctx, c, b, func(context.Context, none) ([]string, error) { return abilities(), nil })
	}
	part := p.part.Load()
	if part == nil {
		return nil, errors.New("not started yet")
	}
	switch c {
	case callReload:
		return serve(ctx, c, b, func(_ context.Context, s started) (none, error) { return none{}, (*part).reload(s) })
	case callStop:
		(*part).stop()
		return nil, nil
	}
	return (*part).serves(ctx, c, b)
}

// begin gives up what the role does not need, then starts it. The answer is what could not be given up.
func (p *process) begin(_ context.Context, s started) ([]string, error) {
	if p.part.Load() != nil {
		return nil, errors.New("started already")
	}
	fd := p.extra
	next := func() *os.File {
		defer func() { fd++ }()
		return os.NewFile(fd, "inherited")
	}
	var empty, passes *os.File
	if p.role == front || p.role == tracer {
		empty = next()
	}
	if p.role == front || p.role == keeper {
		passes = next()
	}
	if p.role == collector || p.role == keeper {
		keepMemory(p.log)
	}
	if p.role == collector {
		if err := keepProcesses(); err != nil {
			p.log.Info("processes are read at /proc: who mounts something over it hides them", "error", err)
		}
	}
	left := confine(p.role, s, empty)
	if s.Trial != nil {
		return prove(*s.Trial), nil
	}
	var made part
	switch p.role {
	case front:
		made = &frontPart{process: p, passes: passes}
	case tracer:
		made = &tracerPart{process: p}
	case collector:
		made = &collectorPart{keeper: &farKeeper{link: p.joints[keeper]}, tracer: tracing{p.joints[tracer]}, supervisor: p.control, log: p.log}
	case keeper:
		made = &keeperPart{process: p, control: passes}
	default:
		return nil, fmt.Errorf("no role %q", p.role)
	}
	if err := made.start(s); err != nil {
		return nil, err
	}
	p.part.Store(&made)
	return left, nil
}

// end ends the part where the supervisor could not say so any more.
func (p *process) end() {
	if part := p.part.Load(); part != nil {
		(*part).stop()
	}
}
