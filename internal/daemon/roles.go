package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stopd/stopd"
	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/evidence/translog"
	"github.com/stopd/stopd/examine"
	"github.com/stopd/stopd/server"
)

// A role is what one of the daemon's processes does. All are this program, run once more.
type role string

const (
	front     role = "front"     // accepts strangers
	tracer    role = "tracer"    // connects to previous hosts and witnesses
	collector role = "collector" // reads the host
	keeper    role = "keeper"    // has the store
)

// roles are all but the supervisor, in the order in which they are started.
var roles = []role{keeper, tracer, collector, front}

// roleVariable names the role of a process that the supervisor starts.
const roleVariable = "STOPD_ROLE"

// The descriptors that a role inherits: its link with the supervisor, its links with others in the order of joins,
// and what else the supervisor opened for it.
const (
	controlFD  = 3
	firstJoint = 4
)

// joins are the links between roles. Who stands first calls.
var joins = [][2]role{{front, collector}, {front, tracer}, {collector, keeper}, {keeper, tracer}}

// A started is what a role is told at its start.
type started struct {
	UID    int  // to run as, -1 to stay
	Root   bool // an inherited descriptor is the empty directory to change the root to
	Extra  int  // inherited descriptors after the joints
	Config Config
	Front  *server.Config `json:",omitempty"`
	PIDs   []int          // of all processes of the daemon
	Trial  *trial         `json:",omitempty"` // to be tried instead of starting
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
	debug.SetGCPercent(50) // five heaps instead of one
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
	for _, j := range joins {
		if j[0] != p.role && j[1] != p.role {
			continue
		}
		other := j[0]
		if other == p.role {
			other = j[1]
		}
		if joints[other], err = inherited(fd); err != nil {
			return err
		}
		fd++
	}
	p.joints = map[role]*link{}
	for other, c := range joints {
		p.joints[other] = newLink(c, p.serveOther)
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

// serveOther answers other roles, once this one has started.
func (p *process) serveOther(ctx context.Context, c call, b []byte) ([]byte, error) {
	part := p.part.Load()
	if part == nil {
		return nil, errors.New("not started yet")
	}
	switch c {
	case callStart, callStop, callReload, callCounted, callLog, callProve, callRecordConfig:
		return nil, errCall(c) // the supervisor's alone
	}
	return (*part).serves(ctx, c, b)
}

// serveControl does what the supervisor says.
func (p *process) serveControl(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callStart:
		return serve(ctx, c, b, p.begin)
	case callProve:
		return serve(ctx, c, b, func(_ context.Context, t trial) ([]string, error) { return prove(t), nil })
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
		return (*part).serves(ctx, callCounted, nil)
	}
	return (*part).serves(ctx, c, b)
}

// begin gives up what the role does not need, then starts it. The answer is what could not be given up.
func (p *process) begin(_ context.Context, s started) ([]string, error) {
	if p.part.Load() != nil {
		return nil, errors.New("started already")
	}
	var extra []*os.File
	for i := range s.Extra {
		extra = append(extra, os.NewFile(p.extra+uintptr(i), "inherited"))
	}
	if p.role == collector || p.role == keeper {
		keepMemory(p.log)
	}
	left := confine(p.role, s, &extra)
	if s.Trial != nil {
		return prove(*s.Trial), nil
	}
	var made part
	switch p.role {
	case front:
		made = &frontPart{process: p, listeners: extra}
	case tracer:
		made = &tracerPart{}
	case collector:
		made = &collectorPart{keeper: &farKeeper{p.joints[keeper]}, log: p.log}
	case keeper:
		made = &keeperPart{process: p, control: extra}
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

// A frontPart is the server.
type frontPart struct {
	process   *process
	listeners []*os.File
	server    *server.Server
	cancel    context.CancelFunc
	finished  atomic.Bool
}

func (f *frontPart) config(s started) *server.Config {
	c := s.Front
	c.Logger, c.Ask = f.process.log, askBy(f.process.joints[tracer])
	return c
}

func (f *frontPart) start(s started) error {
	var ls []net.Listener
	for _, file := range f.listeners {
		l, err := net.FileListener(file)
		file.Close()
		if err != nil {
			return fmt.Errorf("use listener: %w", err)
		}
		ls = append(ls, l)
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.server = server.New(answerer{f.process.joints[collector]}, f.config(s))
	for _, l := range ls {
		go func() {
			if err := f.server.Serve(ctx, l); err != nil {
				f.process.log.Error("accept connections", "error", err)
				os.Exit(1)
			}
		}()
	}
	return nil
}

func (f *frontPart) reload(s started) error {
	f.server.Configure(f.config(s))
	return nil
}

// stop answers what was asked, and lets trace-backs end for a while.
func (f *frontPart) stop() {
	if f.finished.Swap(true) {
		return
	}
	f.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if f.server.Wait(ctx) != nil {
		f.process.log.Warn("stopped before all trace-backs had ended")
	}
}

func (f *frontPart) serves(_ context.Context, c call, _ []byte) ([]byte, error) {
	if c != callCounted {
		return nil, errCall(c)
	}
	var counted [][2]string
	for _, a := range f.server.Counters.LogValue().Group() {
		counted = append(counted, [2]string{a.Key, a.Value.String()})
	}
	return json.Marshal(counted)
}

// A tracerPart connects.
type tracerPart struct {
	witnesses []Witness
	client    *http.Client
}

func (t *tracerPart) start(s started) error {
	net.DefaultResolver.PreferGo = true // the system's would load libraries
	t.witnesses, t.client = s.Config.Witnesses, translog.WitnessClient(nil)
	return nil
}

func (*tracerPart) reload(started) error { return nil }
func (*tracerPart) stop()                {}

func (t *tracerPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	switch c {
	case callAsk:
		return serve(ctx, c, b, askHost)
	case callPost:
		return serve(ctx, c, b, func(ctx context.Context, p posted) (answered, error) { return post(ctx, t.client, t.witnesses, p) })
	case callCounted:
		return []byte("null"), nil
	}
	return nil, errCall(c)
}

// A collectorPart examines.
type collectorPart struct {
	keeper *farKeeper
	log    *slog.Logger
	sys    system
	later  sync.WaitGroup // what the start does not wait for
	now    atomic.Pointer[examine.Examiner]
}

func (o *collectorPart) start(s started) (err error) {
	if o.sys, err = openSystem(); err != nil {
		return err
	}
	o.later.Go(func() {
		if err := o.sys.accelerate(); err != nil {
			o.log.Info("descriptors are read by /proc alone", "cause", err)
		}
	})
	return o.reload(s)
}

func (o *collectorPart) reload(s started) error {
	x := examiner(s.Config, o.sys, s.PIDs)
	x.Keeper, x.Checkpoint = o.keeper, o.keeper.checkpoint
	o.now.Store(x)
	return nil
}

func (o *collectorPart) stop() {
	o.later.Wait()
	o.sys.close()
}

func (o *collectorPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	if c == callCounted {
		return []byte("null"), nil
	}
	return serveAnswerer(o.now.Load)(ctx, c, b)
}

// A farKeeper is the keeper as the collector sees it. It does not wait for it for ever.
type farKeeper struct{ link *link }

func (k *farKeeper) Keep(ctx context.Context, report []byte, p stop.Payer) (stop.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	var t stop.Token
	b, err := formatKept(report, p)
	if err == nil {
		b, err = k.link.call(ctx, callKeep, b)
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err == nil && t != stop.TokenOf(report) {
		err = errors.New("the keeper's token is another report's")
	}
	if err != nil {
		return stop.Token{}, err
	}
	return t, nil
}

func (k *farKeeper) KeepTraceback(ctx context.Context, t stop.Token, record []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err := ask[none](ctx, k.link, callKeepTraceback, keptTraceback{t, record})
	return err
}

// checkpoint is the digest of the log's last checkpoint.
func (k *farKeeper) checkpoint() string {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	digest, _ := ask[string](ctx, k.link, callCheckpoint, none{})
	return digest
}

// A keeperPart is the store.
type keeperPart struct {
	process *process
	control []*os.File // one, which passes the control socket's listener
	store   *evidence.Store
	policy  translog.Policy
	cancel  context.CancelFunc
	done    [2]chan struct{} // the log's work, the control socket
	ended   atomic.Bool
}

func (k *keeperPart) start(s started) error {
	var by http.RoundTripper
	if l := k.process.joints[tracer]; l != nil {
		by = poster{l}
	}
	var err error
	if k.store, k.policy, err = openStore(s.Config, by, k.process.log); err != nil {
		return err
	}
	// The control socket goes on while the last requests finish, and so do the log and its witnesses.
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(context.Background())
	k.done = [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(k.done[0])
		k.store.Log().Run(ctx, translog.DefaultSchedule, k.policy, k.process.log)
	}()
	go func() {
		defer close(k.done[1])
		if err := k.serveControl(ctx); err != nil {
			k.process.log.Error("serve control socket", "error", err)
		}
	}()
	return nil
}

func (k *keeperPart) serveControl(ctx context.Context) error {
	if len(k.control) == 0 {
		return nil
	}
	l, err := receiveListener(k.control[0])
	if err != nil || l == nil {
		return err
	}
	return k.store.ServeControl(ctx, l)
}

func (*keeperPart) reload(started) error { return nil }

// stop signs the log as it is at the end, shows it to the witnesses once more, and closes the store.
func (k *keeperPart) stop() {
	if k.ended.Swap(true) {
		return
	}
	k.cancel()
	<-k.done[0]
	<-k.done[1]
	vouch(k.store.Log(), k.policy, k.process.log)
	if err := k.store.Close(); err != nil {
		k.process.log.Error("close", "error", err)
	}
}

func (k *keeperPart) serves(ctx context.Context, c call, b []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	switch c {
	case callKeep:
		report, p, err := parseKept(b)
		if err != nil {
			return nil, err
		}
		t, err := k.store.Keep(ctx, report, p)
		if err != nil {
			return nil, err
		}
		return json.Marshal(t)
	case callKeepTraceback:
		return serve(ctx, c, b, func(ctx context.Context, t keptTraceback) (none, error) {
			return none{}, k.store.KeepTraceback(ctx, t.Token, t.Record)
		})
	case callCheckpoint:
		return json.Marshal(k.store.Log().LastDigest())
	case callRecordConfig:
		return serve(ctx, c, b, func(ctx context.Context, sum [32]byte) (none, error) { return none{}, k.store.RecordConfig(ctx, sum) })
	case callCounted:
		return []byte("null"), nil
	}
	return nil, errCall(c)
}

// vouch signs the log as it is at the end, and shows it to the witnesses once more.
func vouch(l *translog.Log, p translog.Policy, log *slog.Logger) {
	if err := l.Checkpoint(); err != nil {
		return // the store's Close tries again, and says so
	}
	ctx, cancel := context.WithTimeout(context.Background(), vouchTimeout)
	defer cancel()
	failed, err := l.Cosign(ctx, p)
	if err != nil {
		log.Error("cosignatures cannot be kept", "error", err)
	}
	for _, f := range failed {
		log.Warn("a witness did not cosign the last checkpoint", "witness", f.Witness.Name(), "error", f.Err)
	}
}

// A farLog is a log that the supervisor writes.
type farLog struct {
	link  *link
	attrs []slog.Attr
}

// A logged is one line of it, its values as text.
type logged struct {
	Level   slog.Level
	Message string
	Attrs   [][2]string
}

func (*farLog) Enabled(context.Context, slog.Level) bool { return true }

func (f *farLog) Handle(_ context.Context, r slog.Record) error {
	l := logged{Level: r.Level, Message: r.Message}
	add := func(a slog.Attr) bool {
		l.Attrs = append(l.Attrs, [2]string{a.Key, a.Value.Resolve().String()})
		return true
	}
	for _, a := range f.attrs {
		add(a)
	}
	r.Attrs(add)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := ask[none](ctx, f.link, callLog, l)
	return err
}

func (f *farLog) WithAttrs(as []slog.Attr) slog.Handler {
	return &farLog{f.link, append(f.attrs[:len(f.attrs):len(f.attrs)], as...)}
}

func (f *farLog) WithGroup(string) slog.Handler { return f }
