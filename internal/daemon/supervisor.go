package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/stopd/stopd/evidence"
	"github.com/stopd/stopd/server"
)

// A supervisor starts the other processes, and them all anew where one ends. It reads the configuration and opens
// the listeners, and no stranger's word comes to it.
type supervisor struct {
	log  *slog.Logger
	path string
	cfg  Config // as at the start

	now       Config // as last read
	listeners []net.Listener
	metrics   net.Listener // nil where there is none
	control   net.Listener
	running   *group
	key       []byte // of what is remembered; nil where there is none yet
	warned    bool   // of what could not be given up
	readers   readers
	lines     lines // that the processes write
}

// A group is one run of the processes. They are started together and end together.
type group struct {
	processes map[role]*child
	died      chan error // has room for all
}

// A child is one process.
type child struct {
	role    role
	process *os.Process
	control *link
	passes  *os.File // passes listeners to the front and the keeper
	ended   chan struct{}
}

// Bounds of starting anew: more often, and the daemon ends.
const (
	maxRestarts   = 5
	restartWindow = time.Minute
)

// startTime is how long a process may take to start: the keeper reads what a crash left behind.
const startTime = 10 * time.Minute

// start starts the processes. On failure none is left.
func (s *supervisor) start() (err error) {
	g := &group{processes: map[role]*child{}, died: make(chan error, len(roles))}
	defer func() {
		if err != nil {
			g.end(endTime)
		}
	}()
	if err := s.launchAll(g); err != nil {
		return err
	}
	if err := s.beginAll(g); err != nil {
		return err
	}
	for _, c := range g.processes {
		go func() {
			<-c.ended
			g.died <- fmt.Errorf("the %s ended", c.role)
		}()
		go s.watch(c)
	}
	s.running, s.warned = g, true
	return nil
}

// launchAll launches the processes, joined to each other. On failure the group has those that were.
func (s *supervisor) launchAll(g *group) (err error) {
	ends, err := joinAll()
	if err != nil {
		return err
	}
	defer ends.close() // so that a link ends with the process at its other end
	launched := make(chan error, len(roles))
	made := make(chan *child, len(roles))
	for _, r := range roles {
		go func() {
			c, err := s.launch(r, ends)
			if c != nil {
				made <- c
			}
			launched <- err
		}()
	}
	for range roles {
		err = errors.Join(err, <-launched)
	}
	for len(made) > 0 {
		c := <-made
		g.processes[c.role] = c
	}
	return err
}

// beginAll has each process begin when what it needs is there. Where the store cannot be opened, no port is.
func (s *supervisor) beginAll(g *group) error {
	s.lastPastKey()
	// The keeper asks witnesses by the tracer as soon as it has started.
	if err := s.begin(g, tracer, started{Config: tracedAtStart(s.cfg), Server: traced(s.now)}); err != nil {
		return err
	}
	if s.cfg.NAT.Answer && !bindsLow() && !s.warned {
		s.log.Warn("machines behind this host are asked by TLS alone, where their keys are pinned", "error", errLowPorts)
	}
	begun := make(chan error)
	go func() {
		begun <- s.begin(g, collector, started{Config: collected(s.now), PIDs: g.pids(), PastKey: s.key})
	}()
	err := s.begin(g, keeper, started{Config: kept(s.cfg)})
	if err = errors.Join(err, <-begun); err != nil {
		return err
	}
	if err := s.keeping(g); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	if err := sendListener(g.processes[keeper].passes, s.control); err != nil {
		return err
	}
	passed := s.listeners
	if s.metrics != nil {
		passed = append(passed[:len(passed):len(passed)], s.metrics)
	}
	for _, l := range passed {
		if err := sendListener(g.processes[front].passes, l); err != nil {
			return err
		}
	}
	return s.begin(g, front, started{Server: fronted(s.now), Listeners: len(s.listeners), Metrics: s.metrics != nil})
}

// renewEvery is how often the key of what is remembered is told to last.
const renewEvery = time.Hour

// lastPastKey has the key of what is remembered over a restart last as long as what is remembered from now on. It stays the same for as long as the supervisor runs:
// what is kept is sealed with it.
func (s *supervisor) lastPastKey() {
	if s.cfg.Recorder.Mode == recorderOff {
		return
	}
	key, err := pastKey(s.cfg.Store, s.cfg.Recorder.Keep.Duration+2*renewEvery, s.key)
	if err == nil {
		s.key = key
	} else if !s.warned && !errors.Is(err, errUnrecorded) { // the collector says that
		s.log.Warn("what is remembered will be lost with a restart", "error", err)
	}
}

// keeping tells the collector that the keeper has started.
func (s *supervisor) keeping(g *group) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	_, err := g.processes[collector].control.call(ctx, callKeeping, nil)
	return err
}

// errLowPorts is why a gateway cannot ask the machines behind it in plain.
var errLowPorts = errors.New("to bind ports below 1024 takes CAP_NET_BIND_SERVICE")

// listen opens what is listened on, the first time.
func (s *supervisor) listen() (err error) {
	if s.control == nil {
		if s.control, err = evidence.ListenControl(s.cfg.Store); err != nil {
			return err
		}
	}
	if s.listeners == nil {
		if s.listeners, err = listeners(s.cfg); err != nil {
			return err
		}
	}
	if at := s.cfg.Metrics.Listen; s.metrics == nil && at != "" {
		if s.metrics, err = net.Listen("tcp", at); err != nil {
			return fmt.Errorf("listen for metrics: %w", err)
		}
	}
	return nil
}

// pids are all processes of the daemon.
func (g *group) pids() []int {
	pids := []int{os.Getpid()}
	for _, c := range g.processes {
		pids = append(pids, c.process.Pid)
	}
	return pids
}

// begin tells a process what it is to do, and waits until it does.
func (s *supervisor) begin(g *group, r role, what started) error {
	left, err := s.tell(g.processes[r], what)
	if err != nil {
		return err
	}
	if !s.warned {
		for _, what := range left {
			s.log.Warn("a process keeps more than it needs", "process", string(r), "error", what)
		}
	}
	return nil
}

// tell has a process give up what it does not need and start. It returns what could not be given up or, of a trial,
// what it can do.
func (s *supervisor) tell(c *child, what started) ([]string, error) {
	if c.role == front || c.role == tracer {
		what.UID = unprivileged()
		what.Root = c.role == front || !s.cfg.resolves() // hosts' names and certificates are in files
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	said, err := ask[[]string](ctx, c.control, callStart, what)
	if errors.Is(err, errLink) {
		return nil, fmt.Errorf("start the %s: it ended", c.role)
	}
	return said, err
}

// said is what a process calls: it logs. The collector has users' files read, too.
func (s *supervisor) said(r role) func(ctx context.Context, c call, b []byte) ([]byte, error) {
	return func(ctx context.Context, c call, b []byte) ([]byte, error) {
		if c == callRead && r == collector {
			return serve(ctx, c, b, s.read)
		}
		if c != callLog {
			return nil, errCall(c)
		}
		return serve(ctx, c, b, func(ctx context.Context, l logged) (none, error) {
			s.lines.write(ctx, s.log, r, l)
			return none{}, nil
		})
	}
}

// supervise waits for what is to be done.
func (s *supervisor) supervise(ctx context.Context, hup <-chan os.Signal) error {
	var restarts []time.Time
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	for {
		select {
		case <-renew.C:
			s.lastPastKey()
		case <-ctx.Done():
			s.stop()
			return nil
		case <-hup:
			s.reload()
		case err := <-s.running.died:
			if ctx.Err() != nil {
				s.stop()
				return nil
			}
			s.running.end(endTime)
			now := time.Now()
			restarts = append(restarts, now)
			if n := len(restarts) - maxRestarts; n > 0 && now.Sub(restarts[n-1]) < restartWindow {
				return fmt.Errorf("%w, %d times within %s", err, maxRestarts+1, restartWindow)
			}
			s.log.Error("a process of the daemon ended: all are started anew", "error", err)
			if err := s.start(); err != nil {
				return fmt.Errorf("start anew: %w", err)
			}
		}
	}
}

// notify tells the service manager.
func (s *supervisor) notify(state string) {
	if err := notify(state); err != nil {
		s.log.Warn("tell the service manager", "error", err)
	}
}

// stop ends the processes in turn, each when nobody needs it any more.
func (s *supervisor) stop() {
	s.log.Info("stopping")
	s.notify("STOPPING=1")
	s.closeListeners()
	// Who is asked after the last reply may still answer, and what became of all is recorded.
	s.finish(front)
	s.finish(tracer)
	s.counted()
	s.closeControl()
	s.finish(collector)
	s.finish(keeper)
	s.running.end(endTime)
	s.running = nil
	s.lastPastKey()
	s.lines.flush(s.log)
}

// finish has a process end what is under way.
func (s *supervisor) finish(r role) {
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout+endTime)
	defer cancel()
	if _, err := s.running.processes[r].control.call(ctx, callStop, nil); err != nil {
		s.log.Error("finish what is under way", "process", string(r), "error", err)
	}
}

// close ends what is left after a failure.
func (s *supervisor) close() {
	if s.running != nil {
		s.running.end(endTime)
	}
	s.closeListeners()
	s.closeControl()
}

func (s *supervisor) closeListeners() {
	for _, l := range s.listeners {
		l.Close()
	}
	if s.metrics != nil {
		s.metrics.Close()
	}
}

func (s *supervisor) closeControl() {
	if s.control != nil {
		if err := s.control.Close(); err != nil {
			s.log.Error("close the control socket", "error", err)
		}
		s.control = nil
	}
}

// endTime is how long a process may take to end when nobody needs it any more.
const endTime = 5 * time.Second

// end has the processes end, and ends those that do not.
func (g *group) end(within time.Duration) {
	for _, c := range g.processes {
		c.control.close()
		if c.passes != nil {
			c.passes.Close()
		}
	}
	late := time.NewTimer(within)
	defer late.Stop()
	for _, c := range g.processes {
		select {
		case <-c.ended:
		case <-late.C:
			for _, c := range g.processes {
				c.process.Kill()
			}
			<-c.ended
		}
	}
}

// counted logs what was counted since the start, on one line.
func (s *supervisor) counted() {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	var sum server.Counted
	for _, r := range []role{front, tracer} {
		c, err := ask[server.Counted](ctx, s.running.processes[r].control, callCounted, none{})
		if err != nil {
			s.log.Error("ask for the counters", "error", err)
			return
		}
		sum = sum.And(c)
	}
	var attrs []slog.Attr
	for _, c := range sum.Counts {
		attrs = append(attrs, slog.Uint64(c.Name, c.N))
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "counted since the start", attrs...)
}
